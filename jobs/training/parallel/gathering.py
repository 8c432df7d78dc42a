"""Puts together what ranks hold in parts.

By collectives of the group itself: `DTensor.full_tensor` takes functional ones, which an emulated
device has none of.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor, Shard


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return all of a tensor; every worker that holds a part of it must call it."""
    if not isinstance(tensor, DTensor):
        return tensor
    mesh, gathered = tensor.device_mesh, tensor.to_local()
    for dim, place in enumerate(tensor.placements):
        if isinstance(place, Shard) and mesh.size(dim) > 1:
            group = mesh.get_group(dim)
            gathered = _joined(gathered, place.dim, tensor.shape[place.dim], group)
    return gathered


def _joined(part: torch.Tensor, dim: int, length: int, group: dist.ProcessGroup) -> torch.Tensor:
    """Return the parts of a group, joined along `dim`; the last ones may be shorter, or empty."""
    size = group.size()
    longest = -(-length // size)
    first = part.transpose(0, dim)
    padded = first.new_zeros((longest, *first.shape[1:]))
    padded[: len(first)] = first
    parts = [torch.empty_like(padded) for _ in range(size)]
    dist.all_gather(parts, padded, group=group)
    return torch.cat(parts)[:length].transpose(0, dim)


def norm_of(norm: torch.Tensor) -> torch.Tensor:
    """Return the norm of a gradient, of which each rank knows its part."""
    if not isinstance(norm, DTensor):
        return norm
    mesh = norm.device_mesh
    squared = norm.to_local().square()
    for dim, place in enumerate(norm.placements):
        if place.is_partial() and mesh.size(dim) > 1:
            dist.all_reduce(squared, group=mesh.get_group(dim))
    return squared.sqrt()
