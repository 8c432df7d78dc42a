"""Which rows make up a batch.

The order is a function of the seed and the position (rows taken so far) alone. It knows no worker:
whoever goes on from a position, with however many workers, skips no row and repeats none.
"""

from __future__ import annotations

import torch


class Order:
    """An endless sequence of rows: a new permutation of all of them in every epoch."""

    def __init__(self, rows: int, *, seed: int) -> None:
        """Order `rows` rows by `seed`."""
        if rows < 1:
            raise ValueError("the training split has no rows; make a larger data set")
        self._rows = rows
        self._seed = seed
        self._epoch = -1
        self._permutation = torch.empty(0, dtype=torch.int64)

    def take(self, position: int, count: int) -> torch.Tensor:
        """Return the row numbers at `position` to `position + count`."""
        return torch.cat(self._parts(position, count))

    def _parts(self, position: int, count: int) -> list[torch.Tensor]:
        parts: list[torch.Tensor] = []
        end = position + count
        while position < end:
            epoch, start = divmod(position, self._rows)
            stop = min(self._rows, start + end - position)
            parts.append(self._of(epoch)[start:stop])
            position += stop - start
        return parts

    def _of(self, epoch: int) -> torch.Tensor:
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(mix(self._seed, epoch))
            self._permutation = torch.randperm(self._rows, generator=generator)
            self._epoch = epoch
        return self._permutation


def mix(*numbers: int) -> int:
    """Return one seed of several numbers, so that close ones give unlike seeds."""
    value = 0x9E3779B97F4A7C15
    for number in numbers:
        value = ((value ^ (number & _MASK)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value >> 1


_MASK = (1 << 64) - 1
