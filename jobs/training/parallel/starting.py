"""Begins a training that is dealt out, with no worker but the first holding all of the model.

Each worker makes the model without memory for its weights, deals that out, and has room for its
part alone. The weights come from the checkpoint; or, of a fresh model and of one that was trained
before, from the first worker, which makes it as a training by one worker would, tensor by tensor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from jobs.training import model as models
from jobs.training.loss import TokenLoss
from jobs.training.parallel.experts import disperse
from jobs.training.parallel.sharding import EXPERT, TENSOR, shard
from jobs.training.parallel.snapshots import parts_of
from jobs.training.parallel.tensor import split
from jobs.training.process_group import ProcessGroup

_INITIALIZED = "_is_hf_initialized"  # what transformers leaves as it is


def outlined(
    make: Callable[[], nn.Module], group: ProcessGroup
) -> tuple[nn.Module, nn.Module | None]:
    """Return the model that `make` makes, without weights; and the first worker that, too."""
    source: Any = make() if group.rank == 0 else None
    known = [(source.config, source.generation_config) if source is not None else None]
    dist.broadcast_object_list(known, src=0)
    assert known[0] is not None  # noqa: S101 - the first worker has it
    return models.empty(*known[0]), source


def deal_out(
    loss: TokenLoss, source: nn.Module | None, group: ProcessGroup, *, come: bool
) -> None:
    """Deal the model of `loss`, which has no weights, out to the workers, and fill it.

    Args:
        loss: What is trained.
        source: The same model with its weights, in the first worker.
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
def _fill(model: nn.Module, source: nn.Module | None, group: ProcessGroup) -> None:
    """Take weights and buffers from the first worker's model."""
    given = {}
    if source is not None:
        given = dict(source.named_parameters()) | dict(source.named_buffers())
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        whole = torch.empty(tensor.shape, dtype=tensor.dtype, device=group.device)
        if given:
            whole.copy_(given[name])
        dist.broadcast(whole, src=0)
        if not isinstance(tensor, DTensor):
            tensor.copy_(whole)
            continue
        for part in parts_of(tensor):
            sizes = zip(part.offsets, part.values.shape, strict=True)
            part.values.copy_(whole[tuple(slice(begin, begin + size) for begin, size in sizes)])
