"""What workers put into a collective, and what must come out of it, whatever their number.

What is summed are whole numbers, drawn at random and so small that every partial sum is exact in
the number type, in whatever order. What is only moved are random bits, of which a link has to
carry each. Worker `rank` puts in value (i + rank) mod 251 of a table at place i, or bits that go
round as well. So the sum over all workers has a closed form, which is a table too: nothing here
grows with the number of workers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

PERIOD = 251  # a prime: it fits no size of a chunk
PERIOD_OF_BITS = 4093  # words; a prime too
# Up to here a type holds every whole number; of int64 as far as float64 does.
_EXACT: Mapping[torch.dtype, int] = MappingProxyType(
    {
        torch.bfloat16: 1 << 8,
        torch.float16: 1 << 11,
        torch.float32: 1 << 24,
        torch.int32: (1 << 31) - 1,
        torch.int64: 1 << 52,
    }
)
_WORDS: Mapping[int, torch.dtype] = MappingProxyType(
    {2: torch.int16, 4: torch.int32, 8: torch.int64}
)
_ROOM = 128  # values as large as that, or more, are drawn from all there are


@dataclass(frozen=True, slots=True)
class Pattern:
    """The tables of a gang of some size, on the device that works with them.

    Attributes:
        values: What is summed [251].
        sums: Over all workers [251].
        largest: Of any worker [251].
        words: What is moved [4093], words as wide as the number type.
    """

    values: Tensor
    sums: Tensor
    largest: Tensor
    words: Tensor

    def of(self, rank: int, count: int, start: int = 0) -> Tensor:
        """Return what worker `rank` has summed at the places from `start` on, [count]."""
        return _spread(self.values, rank + start, count)

    def total(self, count: int, start: int = 0) -> Tensor:
        """Return the sum over all workers at the places from `start` on, [count]."""
        return _spread(self.sums, start, count)

    def most(self, count: int) -> Tensor:
        """Return the largest value of any worker, [count]."""
        return _spread(self.largest, 0, count)

    def bits(self, rank: int, count: int, start: int = 0) -> Tensor:
        """Return the random bits that worker `rank` moves, as numbers of the type, [count]."""
        return _spread(self.words, rank + start, count).view(self.values.dtype)


def pattern(size: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Pattern:
    """Return the pattern of `size` workers in numbers of `dtype`, the same for equal seeds.

    Raises:
        ValueError: There are too many for sums that are exact.
    """
    generator = torch.Generator().manual_seed(seed)
    values = _values(size, _EXACT[dtype], generator)
    whole, rest = divmod(size, PERIOD)
    rolled = torch.stack([values.roll(-shift) for shift in range(min(size, PERIOD))])
    sums = whole * values.sum() + rolled[:rest].sum(0)
    tables = (values, sums, rolled.max(0).values)
    summed, totals, largest = (table.to(dtype).to(device) for table in tables)
    drawn = torch.randint(0, 1 << 16, (PERIOD_OF_BITS, 4), generator=generator).to(torch.int16)
    words = drawn.view(_WORDS[dtype.itemsize])[:, 0].contiguous()
    return Pattern(summed, totals, largest, words.to(device))


def same_bits(actual: Tensor, expected: Tensor) -> bool:
    """Whether all numbers are equal, those that are no numbers by their bits."""
    if torch.equal(actual, expected):
        return True
    word = _WORDS[actual.dtype.itemsize]
    return torch.equal(actual.view(word), expected.view(word))


def _values(size: int, exact: int, generator: torch.Generator) -> Tensor:
    """Return the values of a table, int64, drawn so that no sum of all workers passes `exact`."""
    most = exact // size
    if most >= _ROOM:
        return torch.randint(-most, most + 1, (PERIOD,), generator=generator)
    times = -(-size // PERIOD)  # how often a value is added at a place, at most
    # As many as have sums of their distances from 0 that are exact: 1, -1, 2, -2, ...
    few = next((k for k in range(PERIOD // 2, 0, -1) if times * k * (k + 1) <= exact), 0)
    if not few:
        raise ValueError(f"size={size!r} workers are too many for sums up to {exact!r}")
    numbers = torch.arange(1, few + 1)
    values = torch.zeros(PERIOD, dtype=torch.int64)
    values[torch.randperm(PERIOD, generator=generator)[: 2 * few]] = torch.cat([numbers, -numbers])
    return values


def _spread(table: Tensor, start: int, count: int) -> Tensor:
    """Return `count` values of a table that goes round, from place `start` on."""
    period = len(table)
    return table.roll(-(start % period)).repeat(-(-count // period))[:count]
