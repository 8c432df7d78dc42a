"""Reads a checkpoint into a training, whoever has written it and however it is dealt out now.

Of a tensor that is dealt out a worker reads the pieces that it holds a part of, from the parts of
the checkpoint that have them, and brings no other. What every worker holds all of is read once,
by the worker that has that part on its node, and handed to the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from safetensors import safe_open
from torch import nn
from torch.distributed.tensor import DTensor

from jobs.training import checkpoint
from jobs.training.checkpoint import MODEL, OPTIMIZER, Tensors
from jobs.training.parallel.snapshots import TensorPart, parts_of
from jobs.training.parallel.stored_chunks import (
    StoredChunk,
    StoredChunks,
    shape_of,
    stored_chunks,
)
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Checkpoint, DataError


@torch.no_grad()
def restore(
    stored: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, group: ProcessGroup
) -> None:
    """Put weights and optimizer back as they were; every worker must call this.

    Raises:
        DataError: Parts of it are missing.
        ValueError: The checkpoint is of another model.
    """
    saved = stored_chunks(stored, group)
    wanted: Tensors = dict(checkpoint.model_tensors(model))
    shapes = {name: shape_of(pieces) for name, pieces in saved.items() if _of_model(name)}
    checkpoint.check_same(stored.step, wanted, shapes)
    state = _room(saved, model, optimizer)
    wanted |= {f"{OPTIMIZER}/{name}/{key}": part for name, key, part in _flat(state)}
    dealt = {name: part for name, part in wanted.items() if isinstance(part, DTensor)}
    _read_parts(stored, saved, dealt)
    _read_together(stored, saved, {k: v for k, v in wanted.items() if k not in dealt}, group)
    names = [name for name, _ in checkpoint.named(model, optimizer)]
    numbered = {index: state[name] for index, name in enumerate(names)}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": numbered, "param_groups": groups})


class _Overlap(NamedTuple):
    """What of a stored chunk of a tensor, at `source` in it, belongs into `target`."""

    name: str
    source: tuple[slice, ...]
    target: torch.Tensor


def _read_parts(
    stored: Checkpoint, saved: StoredChunks, wanted: Mapping[str, torch.Tensor]
) -> None:
    """Read what this worker holds of each tensor into its place."""
    reads: dict[tuple[int, str], list[_Overlap]] = {}
    for name, tensor in wanted.items():
        for part in parts_of(tensor):
            for chunk in saved[name]:
                if (overlap := _overlap(name, chunk, part)) is not None:
                    reads.setdefault((chunk.shard, chunk.file), []).append(overlap)
    for shard, file in sorted(reads):
        with safe_open(stored.shards[shard] / file, framework="pt") as opened:
            for overlap in reads[shard, file]:
                overlap.target.copy_(opened.get_slice(overlap.name)[overlap.source])


def _overlap(name: str, chunk: StoredChunk, part: TensorPart) -> _Overlap | None:
    source: list[slice] = []
    target: list[slice] = []
    for place, begin, size in zip(chunk.place, part.offsets, part.values.shape, strict=True):
        first, last = max(place.start, begin), min(place.stop, begin + size)
        if first >= last:
            return None
        source.append(slice(first - place.start, last - place.start))
        target.append(slice(first - begin, last - begin))
    return _Overlap(name, tuple(source), part.values[tuple(target)])


def _read_together(
    stored: Checkpoint, saved: StoredChunks, wanted: Tensors, group: ProcessGroup
) -> None:
    """Read what all workers hold: each from the parts on its node, for all others as well."""
    with ExitStack() as stack:
        files: dict[tuple[int, str], Any] = {}
        for name, tensor in wanted.items():
            for chunk in saved[name]:
                values = torch.empty(tuple(chunk.sizes), dtype=chunk.dtype, device=group.device)
                owner = chunk.shard % group.size
                if owner == group.rank:
                    key = (chunk.shard, chunk.file)
                    if key not in files:
                        file = stored.shards[chunk.shard] / chunk.file
                        files[key] = stack.enter_context(safe_open(file, framework="pt"))
                    values.copy_(files[key].get_tensor(name))
                if group.size > 1:
                    dist.broadcast(values, src=owner)
                tensor[chunk.place].copy_(values)


def _room(
    saved: StoredChunks, model: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensors]:
    """Return room for what the optimizer keeps of each parameter, dealt out as that is.

    Raises:
        DataError: The last part of something is missing.
    """
    kept: dict[str, dict[str, Sequence[StoredChunk]]] = {}
    for path, pieces in saved.items():
        if path.startswith(f"{OPTIMIZER}/"):
            owner, _, key = path.removeprefix(f"{OPTIMIZER}/").rpartition("/")
            kept.setdefault(owner, {})[key] = pieces
    room: dict[str, Tensors] = {}
    for name, parameter in checkpoint.named(model, optimizer):
        room[name] = {key: _empty(pieces, parameter) for key, pieces in kept.get(name, {}).items()}
        for key, tensor in room[name].items():
            if tensor.ndim and tensor.shape != parameter.shape:
                shapes = f"{tuple(tensor.shape)}, not {tuple(parameter.shape)}"
                raise DataError(f"checkpoint: {key!r} of {name!r} has shape {shapes}")
    return room


def _empty(pieces: Sequence[StoredChunk], parameter: torch.Tensor) -> torch.Tensor:
    shape, dtype = shape_of(pieces), pieces[0].dtype
    if shape == parameter.shape:
        return torch.zeros_like(parameter, dtype=dtype, requires_grad=False)
    return torch.zeros(shape, dtype=dtype)


def _flat(state: Mapping[str, Tensors]) -> Iterator[tuple[str, str, torch.Tensor]]:
    for name, parts in state.items():
        for key, part in parts.items():
            yield name, key, part


def _of_model(name: str) -> bool:
    return name.startswith(f"{MODEL}/")
