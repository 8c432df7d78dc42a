"""What workers put into a collective, and what must come out of it, whatever their number.

Worker `rank` puts in value (i + rank) mod 251 of a table at place i. So the sum over all workers
has a closed form, which is a table too: nothing here grows with the number of workers. Values are
whole and so few that every partial sum is exact in the number type, in whatever order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

PERIOD = 251  # a prime: it fits no size of a chunk
# Up to here a type holds every whole number.
_EXACT: Mapping[torch.dtype, int] = MappingProxyType(
    {torch.bfloat16: 1 << 8, torch.float16: 1 << 11, torch.float32: 1 << 24}
)
_OF_WHOLE = 1 << 31


@dataclass(frozen=True, slots=True)
class Pattern:
    """The tables of a gang of some size: [251] each, on the device that works with them."""

    values: Tensor
    sums: Tensor
    largest: Tensor

    def of(self, rank: int, count: int, start: int = 0) -> Tensor:
        """Return what worker `rank` puts in at the places from `start` on, [count]."""
        return _spread(self.values, rank + start, count)

    def total(self, count: int, start: int = 0) -> Tensor:
        """Return the sum over all workers at the places from `start` on, [count]."""
        return _spread(self.sums, start, count)

    def most(self, count: int) -> Tensor:
        """Return the largest value of any worker, [count]."""
        return _spread(self.largest, 0, count)


def pattern(size: int, dtype: torch.dtype, device: torch.device) -> Pattern:
    """Return the pattern of `size` workers in numbers of `dtype`.

    Raises:
        ValueError: There are too many for sums that are exact.
    """
    values = _values(size, _EXACT.get(dtype, _OF_WHOLE))
    whole, rest = divmod(size, PERIOD)
    rolled = torch.stack([values.roll(-shift) for shift in range(min(size, PERIOD))])
    sums = whole * values.sum() + rolled[:rest].sum(0)
    tables = (values, sums, rolled.max(0).values)
    return Pattern(*(table.to(dtype).to(device) for table in tables))


def _values(size: int, exact: int) -> Tensor:
    """Return the values of a table, int64: 0, 1, 2, ... as far as all sums are exact, then 0."""
    times = -(-size // PERIOD)  # how often a value is added at a place, at most
    width = next((w for w in range(PERIOD, 1, -1) if times * w * (w - 1) // 2 <= exact), 0)
    if not width:
        raise ValueError(f"size={size!r} workers are too many for sums up to {exact!r}")
    places = torch.arange(PERIOD)
    return torch.where(places < width, places, 0)


def _spread(table: Tensor, start: int, count: int) -> Tensor:
    """Return `count` values of a table that goes round, from place `start` on."""
    return table.roll(-(start % PERIOD)).repeat(-(-count // PERIOD))[:count]
