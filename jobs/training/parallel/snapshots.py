"""Checkpoints of a model that is dealt out: each rank its own part, and no part twice.

    rank-0/config.json, state.json    as those of any training
    rank-K/shard.safetensors          the parts that rank K holds of `model/NAME` and
                                      `optimizer/PARAMETER/STATE`; second pieces of
                                      tensors stand in `shard-1.safetensors`

A file says where in its tensor each part begins, as `torch.distributed.checkpoint` does in
safetensors, and is read by that. Nothing passes between the workers to save it, so that it is
written beside the training. What replicas hold alike is dealt out to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from jobs.training import checkpoint
from jobs.training.checkpoint import SHARD_NAME, State, Tensors
from jobs.training.parallel.gathering import packed_in
from jobs.training.process_group import ProcessGroup

FORMAT = "DCP_SHARDING_INFO"  # by these names torch.distributed.checkpoint finds the parts
OFFSETS = "saved_offsets"
_PIECE = "|"  # between the number of a piece and the name of its tensor
_VERSION = {"DCP_VERSION": "1.0", "format": "pt"}


class TrainingSnapshots(Protocol):
    """Copies of a worker's share of the state of a training."""

    def take(self, state: State) -> Callable[[Path], None]:
        """Copy the share now; return what writes the copy into a folder."""
        ...

    def finite(self) -> bool:
        """Whether all numbers of the share are numbers."""
        ...


def snapshots_of(
    model: Any,  # noqa: ANN401 - a transformers model
    optimizer: torch.optim.Optimizer,
    group: ProcessGroup,
) -> TrainingSnapshots:
    """Return what copies this worker's share of a training."""
    if group.mesh is None:
        return checkpoint.Snapshots(model, optimizer, rank=group.rank, size=group.size)
    return ShardedSnapshots(model, optimizer, rank=group.rank, size=group.size)


class ShardedSnapshots(checkpoint.Snapshots):
    """Copies of what worker `rank` holds of a model that is dealt out."""

    @cached_property
    def _offsets(self) -> dict[str, tuple[int, ...]]:
        """Where in its tensor each part begins, of those that were copied."""
        return {}

    def _is_mine(self, tensor: torch.Tensor, number: int) -> bool:
        """Whether of those who hold the same part this rank saves it; `number` is the tensor's."""
        if not isinstance(tensor, DTensor):
            return number % self._size == self._rank
        mesh = tensor.device_mesh
        replicas = [at for at, place in enumerate(tensor.placements) if place.is_replicate()]
        together = self._size // mesh.size()  # workers that hold all of what is on this mesh
        return number % together == self._rank % together and all(
            number % mesh.size(at) == mesh.get_local_rank(at) for at in replicas
        )

    def _parts(self) -> Iterator[tuple[str, TensorPart]]:
        """Yield the parts that this rank saves, by their names in the copy."""
        whole = checkpoint.state_tensors(self._model, self._optimizer)
        for number, (name, tensor) in enumerate(whole):
            if self._is_mine(tensor, number):
                for piece, part in enumerate(parts_of(tensor)):
                    yield f"{piece}{_PIECE}{name}", part

    def _share(self) -> Tensors:
        parts = dict(self._parts())
        self._offsets.update((key, part.offsets) for key, part in parts.items())  # they stay
        return {key: part.values for key, part in parts.items()}

    def _save(self, copy: Tensors, folder: Path) -> None:
        """Write the copy; a second piece of one tensor goes into a file of its own."""
        files: dict[str, Tensors] = {}
        begins: dict[str, dict[str, object]] = {}
        for key, values in copy.items():
            piece, _, name = key.partition(_PIECE)
            files.setdefault(piece, {})[name] = values
            begins.setdefault(piece, {})[name] = {OFFSETS: self._offsets[key]}
        for piece, tensors in files.items():
            file = folder / (SHARD_NAME if piece == "0" else f"shard-{piece}.safetensors")
            save_file(tensors, file, metadata={**_VERSION, FORMAT: json.dumps(begins[piece])})


@dataclass(frozen=True, slots=True)
class TensorPart:
    """What a rank holds of a tensor in one piece: it begins at `offsets`."""

    values: torch.Tensor
    offsets: tuple[int, ...]


def parts_of(tensor: torch.Tensor) -> list[TensorPart]:
    """Return the pieces that this rank holds of a tensor: all of it, where it is not dealt out."""
    if not isinstance(tensor, DTensor):
        return [TensorPart(tensor, (0,) * tensor.ndim)]
    local, mesh, places = tensor.to_local(), tensor.device_mesh, list(tensor.placements)
    packed = [at for at in range(len(places)) if packed_in(tensor, at) > 1]
    dims = {at: places[at].dim for at in packed}  # type: ignore[attr-defined] # of those that split
    for at in packed:
        places[at] = Replicate()
    _, offsets = compute_local_shape_and_global_offset(tensor.shape, mesh, places)
    pieces = [TensorPart(local, tuple(offsets))]
    for at, dim in dims.items():
        matrices = packed_in(tensor, at)
        of_each, rank = tensor.shape[dim] // matrices, mesh.get_local_rank(at)
        step = of_each // mesh.size(at)
        pieces = [
            TensorPart(
                piece.values.narrow(dim, number * step, step),
                _moved(piece.offsets, dim, number * of_each + rank * step),
            )
            for piece in pieces
            for number in range(matrices)
        ]
    return [piece for piece in pieces if piece.values.numel()]


def _moved(offsets: tuple[int, ...], dim: int, begin: int) -> tuple[int, ...]:
    return (*offsets[:dim], begin, *offsets[dim + 1 :])
