"""How many tokens a cache may hold: what was asked for, or what the memory has room for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

SHARE = 0.5  # of the memory that is free: while it grows, a cache is there twice
_GIB = 2**30
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))


def budget(
    cell: int, wanted: int, free: int | None, *, tokens: int | None = None, gb: float | None = None
) -> int:
    """Return how many tokens of `cell` bytes a cache may hold.

    Args:
        cell: Bytes of a token.
        wanted: Tokens of all slots, each as long as the context.
        free: Bytes of memory that are free, where that is known.
        tokens: Tokens that were asked for.
        gb: GiB that were asked for.

    Raises:
        ValueError: Both were asked for, or not even one token has room.
    """
    if tokens is not None and gb is not None:
        raise ValueError("cache_tokens and cache_gb say the same: leave one of them out")
    if tokens is not None:
        most = tokens
    elif gb is not None:
        most = int(gb * _GIB / max(cell, 1))
    else:
        most = wanted if free is None else min(wanted, int(free * SHARE / max(cell, 1)))
    if most < 1:
        raise ValueError(f"the cache has no room for a token of {cell} bytes; give cache_gb")
    return most


def free_bytes(device: str) -> int | None:
    """Return the bytes of memory that a device has free; `None` where it doesn't say."""
    kind = device.partition(":")[0]
    if kind == "cpu":
        return min(int(psutil.virtual_memory().available), _free_of_container())
    module: Any = getattr(torch, kind, None)
    try:
        free, _ = module.mem_get_info(torch.device(device))
    except (AttributeError, RuntimeError, TypeError):
        return None
    return int(free)


def _free_of_container() -> int:
    """Return what the limit of a container leaves; without one, more than there is."""
    try:
        limit, current = (file.read_text(encoding="ascii").strip() for file in _LIMITS)
        return int(limit) - int(current)
    except (OSError, ValueError):
        return 1 << 62
