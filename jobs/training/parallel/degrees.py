"""How many ways a training is split: `parallel` as a recipe writes it, parsed and checked.

The names are those of the field: HSDP replicates what FSDP shards; tensor parallelism splits the
products of a layer. The product of all is the number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import prod

REST = -1  # of `shard`: as many as there are workers left


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshDegrees:
    """The degrees of a device mesh, outermost first.

    Attributes:
        replicate: Groups that hold the same weights and take other rows.
        shard: Workers that a group deals weights, gradients and optimizer state out to.
        tensor: Workers that compute each layer together, on the same rows.
        expert: Workers that the experts of a layer are dealt out to.
        pipeline: Workers that the layers are dealt out to.
    """

    replicate: int = 1
    shard: int = 1
    tensor: int = 1
    expert: int = 1
    pipeline: int = 1

    @property
    def workers(self) -> int:
        """How many workers the mesh has."""
        return prod(asdict(self).values())

    @property
    def data(self) -> int:
        """How many workers take rows of their own."""
        return self.replicate * self.shard


_DEGREES = tuple(known.name for known in fields(MeshDegrees))
_OPEN = frozenset({"expert", "pipeline"})  # what no part of the training does yet


def parallel_of(written: Mapping[str, object], workers: int) -> MeshDegrees:
    """Return the degrees that a recipe asks for, of so many workers.

    Raises:
        ValueError: They are none, or their product is another number.
    """
    for name, value in written.items():
        if name not in _DEGREES:
            raise ValueError(f"parallel has no degree {name!r}; it has {', '.join(_DEGREES)}")
        least = REST if name == "shard" else 1
        if isinstance(value, bool) or not isinstance(value, int) or value < least or value == 0:
            hint = f"at least 1, or {REST} for all workers left" if least == REST else "at least 1"
            raise ValueError(f"parallel.{name}={value!r}: give a whole number, {hint}")
    degrees = MeshDegrees(**written)  # type: ignore[arg-type] # checked above
    for name in sorted(_OPEN):
        if getattr(degrees, name) > 1:
            way_out = "take shard and tensor, or torchtitan or Megatron as a command"
            raise ValueError(
                f"parallel.{name}={getattr(degrees, name)!r} is not done here: {way_out}"
            )
    if degrees.shard == REST:
        degrees = replace(degrees, shard=max(1, workers // replace(degrees, shard=1).workers))
    if degrees.workers != workers:
        parts = [f"{name} {degree}" for name, degree in asdict(degrees).items() if degree > 1]
        product = f"{' x '.join(parts) or 'shard 1'} is {degrees.workers!r}"
        raise ValueError(f"parallel: {product}, not the {workers!r} workers of the stage")
    return degrees
