"""Puts together what ranks hold in parts.

By collectives of the group itself: `DTensor.full_tensor` takes functional ones, which an emulated
device has none of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from jobs.training.parallel.sharding import TENSOR


def pieces(tensor: torch.Tensor, most: int) -> Iterator[tuple[tuple[slice, ...], torch.Tensor]]:
    """Yield all of a tensor in pieces of `most` bytes or less, each with its place.

    Every worker that holds a part of it must take them all. It is cut along the longest dimension
    that no degree splits; a tensor whose every dimension is split is one piece.
    """
    everything = (slice(None),) * tensor.ndim
    if not isinstance(tensor, DTensor):
        yield everything, tensor
        return
    local, split = tensor.to_local(), {p.dim for p in tensor.placements if hasattr(p, "dim")}
    free = [dim for dim in range(tensor.ndim) if dim not in split]
    if not free:
        yield everything, _gathered(local, tensor)
        return
    dim = max(free, key=lambda dim: tensor.shape[dim])
    length = tensor.shape[dim]
    step = max(1, most * length // max(1, tensor.numel() * tensor.element_size()))
    for begin in range(0, length, step):
        end = min(begin + step, length)
        place = (*everything[:dim], slice(begin, end), *everything[dim + 1 :])
        yield place, _gathered(local.narrow(dim, begin, end - begin), tensor)


def _gathered(part: torch.Tensor, tensor: DTensor) -> torch.Tensor:
    """Return what becomes of `part` of what each worker holds of `tensor`, put together.

    A dimension that two degrees share was split by the inner one first, so the outer one is joined
    first, to the length of a part of the inner one.
    """
    mesh, gathered = tensor.device_mesh, part
    splits = [(at, place) for at, place in enumerate(tensor.placements) if hasattr(place, "dim")]
    for number, (at, place) in enumerate(splits):
        if mesh.size(at) == 1:
            continue
        group, dim, packed = mesh.get_group(at), place.dim, packed_in(tensor, at)
        within = prod(mesh.size(other) for other, p in splits[number + 1 :] if p.dim == dim)
        length = tensor.shape[dim] // within // packed
        shape = gathered.shape  # of which `dim` may be empty here
        apart = gathered.reshape(*shape[:dim], packed, shape[dim] // packed, *shape[dim + 1 :])
        gathered = _joined(apart, dim + 1, length, group).flatten(dim, dim + 1)
    return gathered


def packed_in(tensor: DTensor, at: int) -> int:
    """Return how many matrices stand in one that the degree `at` of the mesh splits each."""
    names = tensor.device_mesh.mesh_dim_names or ()
    split = names[at : at + 1] == (TENSOR,)
    return getattr(tensor.placements[at], "split_factor", 1) if split else 1


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


@torch.no_grad()
def clipped(parameters: Iterable[torch.Tensor], most: float) -> torch.Tensor:
    """Have the norm of a gradient that is dealt out be `most` at most; return what it was.

    Each worker adds up what it holds, over how many hold the same.
    """
    parts = [(grad, _local(grad)) for weight in parameters if (grad := weight.grad) is not None]
    size = dist.get_world_size()
    squares = [
        torch.linalg.vector_norm(part, dtype=torch.float32).square() * (_splits(grad) / size)
        for grad, part in parts
    ]
    total = torch.stack(squares).sum()
    dist.all_reduce(total)
    norm = total.sqrt()
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    for _, part in parts:
        part.mul_(factor)
    return norm


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _splits(tensor: torch.Tensor) -> int:
    """Return over how many workers a tensor is split."""
    if not isinstance(tensor, DTensor):
        return 1
    mesh = tensor.device_mesh
    return prod(mesh.size(at) for at, p in enumerate(tensor.placements) if hasattr(p, "dim"))
