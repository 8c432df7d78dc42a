"""How many ways a training is split: `parallel` as a recipe writes it, parsed and checked.

The names are those of the field: HSDP replicates what FSDP shards; tensor parallelism splits the
products of a layer, expert parallelism its experts. The product of all is the number of workers.
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
        expert: Workers that the experts of a layer are dealt out to; each takes rows of its own.
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
        return self.replicate * self.dealt

    @property
    def dealt(self) -> int:
        """How many workers a group deals out to what is no expert."""
        return self.shard * self.expert


_DEGREES = tuple(known.name for known in fields(MeshDegrees))


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
    _check_done(degrees)
    if degrees.shard == REST:
        degrees = replace(degrees, shard=max(1, workers // replace(degrees, shard=1).workers))
    if degrees.workers != workers:
        parts = [f"{name} {degree}" for name, degree in asdict(degrees).items() if degree > 1]
        product = f"{' x '.join(parts) or 'shard 1'} is {degrees.workers!r}"
        raise ValueError(f"parallel: {product}, not the {workers!r} workers of the stage")
    return degrees


def _check_done(degrees: MeshDegrees) -> None:
    """Raise a `ValueError` where no part of the training does what `degrees` ask for."""
    other = "or torchtitan or Megatron as a command"
    if degrees.pipeline > 1:
        raise ValueError(
            f"parallel.pipeline={degrees.pipeline!r} is not done here: take shard, tensor and "
            f"expert, {other}"
        )
    if degrees.expert > 1 and degrees.tensor > 1:
        raise ValueError(
            f"parallel.expert={degrees.expert!r} with parallel.tensor={degrees.tensor!r} is not "
            f"done here: take one of both with shard, {other}"
        )
