"""Begins a training that is dealt out, with no worker holding all of the model.

Each worker makes the model without memory for its weights, deals that out, and has room for its
part alone. The weights come from the checkpoint; or, of a fresh model and of one that was trained
before, from the first worker. A fresh one it makes weight by weight, with the numbers that one
worker alone would draw; one that was trained before, and one of a type of which it can't know how
its weights come about, it holds at first.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import register_fsdp_forward_method

from jobs.training import model as models
from jobs.training.loss import TokenLoss
from jobs.training.parallel.experts import disperse
from jobs.training.parallel.sharding import EXPERT, TENSOR, shard
from jobs.training.parallel.snapshots import TensorPart, parts_of
from jobs.training.parallel.tensor import split
from jobs.training.parallel.weight_by_weight import FEWEST, ModelByWeights, UnknownStepError
from jobs.training.process_group import ProcessGroup

_INITIALIZED = "_is_hf_initialized"  # what transformers leaves as it is
_MOST_SENT = 2**28  # bytes of a weight at once: 256 MiB

_LARGE = 2**20  # numbers of a weight; those that are computed from others have fewer

Source: TypeAlias = nn.Module | ModelByWeights


def outlined(
    make: Callable[[], nn.Module], group: ProcessGroup, *, fresh: bool
) -> tuple[nn.Module, Source | None]:
    """Return the model that `make` makes, without weights; and the first worker where they are.

    `fresh` is a model whose weights are drawn, and not read.
    """
    source = _source(make, fresh=fresh) if group.rank == 0 else None
    model: Any = source.outline if isinstance(source, ModelByWeights) else source
    known = [(model.config, model.generation_config) if model is not None else None]
    dist.broadcast_object_list(known, src=0)
    assert known[0] is not None  # noqa: S101 - the first worker has it
    return models.empty(*known[0]), source


def _source(make: Callable[[], nn.Module], *, fresh: bool) -> Source:
    for fewest in (FEWEST, _LARGE) if fresh else ():
        with suppress(UnknownStepError):
            return ModelByWeights(make, fewest=fewest)
    return make()


def deal_out(loss: TokenLoss, source: Source | None, group: ProcessGroup, *, come: bool) -> None:
    """Deal the model of `loss`, which has no weights, out to the workers, and fill it.

    Args:
        loss: What is trained.
        source: The same model with its weights, or how they are made, in the first worker.
        group: The workers; all call this.
        come: Whether the weights come from a checkpoint instead, later.
    """
    assert group.mesh is not None  # noqa: S101 - nobody else has parts
    if group.mesh[TENSOR].size() > 1:
        split(loss.model, group.mesh[TENSOR])
    if group.expert_mesh is not None:
        disperse(loss.model, group.expert_mesh[EXPERT], group.mesh[TENSOR])
    shard(loss, group.mesh, group.expert_mesh, bf16=loss.bf16)
    loss.to_empty(device=group.device)
    for weight in loss.parameters():
        setattr(weight, _INITIALIZED, True)
    loss.model.initialize_weights()  # buffers that are computed, and in no file
    if not come:
        _fill(loss.model, source, group)
    for method in ("settle", "keeps_apart"):
        register_fsdp_forward_method(loss, method)


@torch.no_grad()
def _fill(model: nn.Module, source: Source | None, group: ProcessGroup) -> None:
    """Take weights and buffers from the first worker's model."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    by_weight = [source.names if isinstance(source, ModelByWeights) else []]
    dist.broadcast_object_list(by_weight, src=0)
    if isinstance(source, ModelByWeights):
        source = source.hand_over(lambda name, values: _send(tensors[name], values, group))
    else:
        for name in by_weight[0]:
            _send(tensors[name], None, group)
    given: dict[str, torch.Tensor] = {}
    if source is not None:
        given = dict(source.named_parameters()) | dict(source.named_buffers())
    for name in (name for name in tensors if name not in {*by_weight[0]}):
        _send(tensors[name], given[name] if source is not None else None, group)


def _send(tensor: torch.Tensor, values: torch.Tensor | None, group: ProcessGroup) -> None:
    """Fill this worker's part of a tensor; the first worker has the `values` of all of it.

    They are sent some rows at a time, so that nobody else needs room for them.
    """
    length, *widths = tensor.shape or (1,)
    size = tensor.numel() * tensor.element_size()
    step = max(1, _MOST_SENT * length // max(1, size))
    for begin in range(0, length, step):
        rows = min(step, length - begin)
        piece = torch.empty((rows, *widths), dtype=tensor.dtype, device=group.device)
        if values is not None:
            piece.copy_(values.reshape(length, *widths)[begin : begin + rows])
        dist.broadcast(piece, src=0)
        for part in parts_of(tensor):
            _place(part, piece, begin)


def _place(part: TensorPart, rows: torch.Tensor, begin: int) -> None:
    """Put what a part has of the `rows` of its tensor, from row `begin` on, into it."""
    if not part.values.ndim:
        part.values.copy_(rows[0])
        return
    (first, *offsets), (length, *sizes) = part.offsets, part.values.shape
    low, high = max(first, begin), min(first + length, begin + len(rows))
    if low < high:
        beside = (slice(b, b + n) for b, n in zip(offsets, sizes, strict=True))
        part.values[low - first : high - first].copy_(rows[low - begin : high - begin, *beside])
