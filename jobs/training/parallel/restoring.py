"""Reads a checkpoint into a training, whoever has written it and however it is dealt out now.

`torch.distributed.checkpoint` finds of each tensor the parts that this worker holds, and reads
those alone. Where every worker holds all of the model, each reads a part for all.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystem
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, ReadItem
from torch.distributed.checkpoint.planner_helpers import create_read_items_for_chunk_list
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import zeros as dealt_zeros

from jobs.training import checkpoint
from jobs.training.checkpoint import MODEL, OPTIMIZER, Tensors
from jobs.training.parallel.gathering import whole
from jobs.training.parallel.snapshots import FORMAT, parts_of
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Checkpoint, DataError


@torch.no_grad()
def restore(
    stored: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, group: ProcessGroup
) -> None:
    """Put weights and optimizer back as they were.

    Raises:
        DataError: Parts of it are missing.
        ValueError: The checkpoint is of another model.
    """
    if group.size == 1 and not _is_dealt(stored):
        checkpoint.restore(stored, model, optimizer)
        return
    reader = _CheckpointReader(stored)
    saved = _saved(reader.read_metadata(), stored)
    wanted: Tensors = dict(checkpoint.model_tensors(model))
    shapes = {name: entry.size for name, entry in saved.items() if _of_model(name)}
    checkpoint.check_same(stored.step, wanted, shapes)
    state = _room(saved, model, optimizer)
    wanted |= {f"{OPTIMIZER}/{name}/{key}": part for name, key, part in _flat(state)}
    if group.mesh is None and group.size > 1:
        _load_together(reader, wanted, group)
    else:
        _load(reader, wanted)
    names = [name for name, _ in checkpoint.named(model, optimizer)]
    numbered = {index: state[name] for index, name in enumerate(names)}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": numbered, "param_groups": groups})


class _CheckpointFiles(FileSystem):
    """The files of a checkpoint, which stand in a folder for each worker that wrote it."""

    def __init__(self, stored: Checkpoint) -> None:
        self._stored = stored

    def ls(self, path: object) -> list[str]:  # noqa: ARG002 - a folder is none of it
        return [str(file) for file in checkpoint.files_of(self._stored)]


class _CheckpointReader(HuggingFaceStorageReader):
    """Reads the parts of a checkpoint, wherever in its folders they are; their headers once."""

    def __init__(self, stored: Checkpoint) -> None:
        super().__init__(str(stored.path.parent))
        self.fs = _CheckpointFiles(stored)
        self._metadata: Metadata | None = None

    def read_metadata(self) -> Metadata:
        if self._metadata is None:
            self._metadata = super().read_metadata()
        return self._metadata


class _PartsPlanner(DefaultLoadPlanner):
    """Plans to read what this worker holds, each piece into its place."""

    def create_local_plan(self) -> LoadPlan:
        assert self.metadata is not None  # noqa: S101 - it was set up
        items: list[ReadItem] = []
        self._places: dict[tuple[str, torch.Size], torch.Tensor] = {}
        for name, tensor in self.state_dict.items():
            for part in parts_of(tensor):
                begin = torch.Size(part.offsets)
                self._places[name, begin] = part.values
                chunk = ChunkStorageMetadata(begin, part.values.shape)
                entry: Any = self.metadata.state_dict_metadata[name]
                items += create_read_items_for_chunk_list(name, entry, [chunk])
        return LoadPlan(items)

    def lookup_tensor(self, index: MetadataIndex) -> torch.Tensor:
        assert index.offset is not None  # noqa: S101 - as planned
        return self._places[index.fqn, index.offset]


def _is_dealt(stored: Checkpoint) -> bool:
    """Whether a checkpoint holds tensors in parts."""
    for file in checkpoint.files_of(stored):
        with safe_open(file, framework="pt") as opened:
            return FORMAT in (opened.metadata() or {})
    return False


def _saved(metadata: Metadata, stored: Checkpoint) -> Mapping[str, TensorStorageMetadata]:
    """Return what is saved of each tensor; all of its parts are there.

    Raises:
        DataError: One is missing.
    """
    saved = {
        name: entry
        for name, entry in metadata.state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }
    for name, entry in saved.items():
        if sum(prod(chunk.sizes) for chunk in entry.chunks) != prod(entry.size):
            folder = str(stored.path.parent)
            raise DataError(f"checkpoint {folder!r} lacks a part of {name!r}")
    return saved


def _room(
    saved: Mapping[str, TensorStorageMetadata],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> dict[str, Tensors]:
    """Return room for what the optimizer keeps of each parameter, dealt out as that is.

    Raises:
        DataError: The last part of something is missing.
    """
    kept: dict[str, dict[str, TensorStorageMetadata]] = {}
    for path, entry in saved.items():
        if path.startswith(f"{OPTIMIZER}/"):
            owner, _, key = path.removeprefix(f"{OPTIMIZER}/").rpartition("/")
            kept.setdefault(owner, {})[key] = entry
    room: dict[str, Tensors] = {}
    for name, parameter in checkpoint.named(model, optimizer):
        room[name] = {key: _empty(entry, parameter) for key, entry in kept.get(name, {}).items()}
        for key, tensor in room[name].items():
            if tensor.ndim and tensor.shape != parameter.shape:
                shapes = f"{tuple(tensor.shape)}, not {tuple(parameter.shape)}"
                raise DataError(f"checkpoint: {key!r} of {name!r} has shape {shapes}")
    return room


def _empty(entry: TensorStorageMetadata, parameter: torch.Tensor) -> torch.Tensor:
    if entry.size == parameter.shape:
        return torch.zeros_like(parameter, dtype=entry.properties.dtype, requires_grad=False)
    return torch.zeros(entry.size, dtype=entry.properties.dtype)


def _flat(state: Mapping[str, Tensors]) -> Iterator[tuple[str, str, torch.Tensor]]:
    for name, parts in state.items():
        for key, part in parts.items():
            yield name, key, part


def _load(reader: _CheckpointReader, wanted: Tensors) -> None:
    """Read what this worker holds of each tensor into its place."""
    with warnings.catch_warnings():  # of a process that reads for itself, as this one means to
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(wanted, storage_reader=reader, planner=_PartsPlanner(), no_dist=True)


def _load_together(reader: _CheckpointReader, wanted: Tensors, group: ProcessGroup) -> None:
    """Read a part of each tensor, and get the others from the workers that have read them."""
    mesh = init_device_mesh(group.device.type, (group.size,))
    parts: Tensors = {
        name: dealt_zeros(
            tensor.shape, dtype=tensor.dtype, device_mesh=mesh, placements=[Shard(0)]
        )
        if tensor.ndim
        else tensor
        for name, tensor in wanted.items()
    }
    _load(reader, parts)
    for name, part in parts.items():
        if isinstance(part, DTensor):
            wanted[name].copy_(whole(part))


def _of_model(name: str) -> bool:
    return name.startswith(f"{MODEL}/")
