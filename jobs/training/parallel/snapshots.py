"""Checkpoints of a model that is dealt out: each rank its own part, and no part twice.

    rank-0/config.json, state.json    as those of any training
    rank-K/shard.safetensors          the parts that rank K holds of `model/NAME` and
                                      `optimizer/PARAMETER/STATE`

A file says where in its tensor each part begins, as `torch.distributed.checkpoint` does in
safetensors, and is read by that. Nothing passes between the workers to save it, so that it is
written beside the training. What replicas hold alike is dealt out to them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from jobs.training import checkpoint
from jobs.training.checkpoint import State, Tensors
from jobs.training.process_group import ProcessGroup

FORMAT = "DCP_SHARDING_INFO"  # by these names torch.distributed.checkpoint finds the parts
OFFSETS = "saved_offsets"
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
        whole = checkpoint.state_tensors(self._model, self._optimizer)
        for number, (name, tensor) in enumerate(whole):
            part = part_of(tensor)
            if part.values.numel() and self._is_mine(tensor, number):
                yield name, part

    def _share(self) -> Tensors:
        return {name: part.values for name, part in self._parts()}

    def _header(self) -> dict[str, str]:
        begins = {name: {OFFSETS: part.offsets} for name, part in self._parts()}
        return {**_VERSION, FORMAT: json.dumps(begins)}


@dataclass(frozen=True, slots=True)
class TensorPart:
    """What a rank holds of a tensor: it begins at `offsets`."""

    values: torch.Tensor
    offsets: tuple[int, ...]


def part_of(tensor: torch.Tensor) -> TensorPart:
    """Return what this rank holds of a tensor: all of it, where it is not dealt out."""
    if not isinstance(tensor, DTensor):
        return TensorPart(tensor, (0,) * tensor.ndim)
    _, offsets = compute_local_shape_and_global_offset(
        tensor.shape, tensor.device_mesh, tensor.placements
    )
    return TensorPart(tensor.to_local(), tuple(offsets))
