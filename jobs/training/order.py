"""Which rows make up a batch.

The order is a function of the seed and the position (rows taken so far) alone. It knows no worker:
whoever goes on from a position, with however many workers, skips no row and repeats none. Nor does
it hold anything as large as the data: where a row goes is computed, by a Feistel network over a
square that holds all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

Numbers = npt.NDArray[np.uint64]

_ROUNDS = 6
_BLOCK = 1 << 16  # rows in which sources of a mixture have their shares


class RowOrder(Protocol):
    """An endless sequence of row numbers."""

    def take(self, position: int, count: int) -> torch.Tensor:
        """Return the row numbers at `position` to `position + count`, int64 [count]."""
        ...


class Order:
    """A new permutation of all rows in every epoch."""

    def __init__(self, rows: int, *, seed: int) -> None:
        """Order `rows` rows by `seed`."""
        if rows < 1:
            raise ValueError("the training split has no rows; make a larger data set")
        self._rows = rows
        self._seed = seed

    def take(self, position: int, count: int) -> torch.Tensor:
        """Return the row numbers at `position` to `position + count`, int64 [count]."""
        return torch.from_numpy(self.at(np.arange(position, position + count, dtype=np.int64)))

    def at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the row number at each of `positions`, which grow."""
        epochs, places = np.divmod(positions, self._rows)
        numbers = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            numbers[here] = permuted(places[here], self._rows, mix(self._seed, int(epoch)))
        return numbers


class MixedOrder:
    """Rows of several sources, each in its own order and as often as its weight says.

    Rows are numbered through the sources one after the other. Weights hold in every 65,536 rows,
    and as nearly as whole rows allow in fewer.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float], *, seed: int) -> None:
        """Mix sources of so many rows.

        Raises:
            ValueError: A weight is not positive, or too small against the others to get a row.
        """
        shares = _shares(weights)
        self._orders = [Order(n, seed=mix(seed, 1, at)) for at, n in enumerate(sizes)]
        self._begins = np.concatenate(([0], np.cumsum(sizes[:-1]))).astype(np.int64)
        # The k-th of n rows of a source stands at (k + 1/2) / n of a block.
        sources = np.repeat(np.arange(len(shares)), shares)
        counts = np.concatenate([np.arange(share) for share in shares])
        order = np.lexsort((sources, (2 * counts + 1) / np.repeat(2 * shares, shares)))
        self._shares = shares
        self._source, self._count = sources[order], counts[order]

    def take(self, position: int, count: int) -> torch.Tensor:
        """Return the row numbers at `position` to `position + count`, int64 [count]."""
        positions = np.arange(position, position + count, dtype=np.int64)
        blocks, slots = np.divmod(positions, _BLOCK)
        sources = self._source[slots]
        taken = blocks * self._shares[sources] + self._count[slots]  # of its source, before it
        numbers = np.empty_like(positions)
        for source in np.unique(sources):
            here = sources == source
            numbers[here] = self._begins[source] + self._orders[source].at(taken[here])
        return torch.from_numpy(numbers)


def permuted(numbers: npt.NDArray[np.int64], size: int, key: int) -> npt.NDArray[np.int64]:
    """Return where a permutation of [0, size) that `key` chooses has each of `numbers`."""
    side = np.uint64(isqrt(size - 1) + 1)
    keys = [np.uint64(mix(key, number)) for number in range(_ROUNDS)]
    values = _feistel(numbers.astype(np.uint64), side, keys)
    while (outside := np.flatnonzero(values >= size)).size:  # of the square: go on from there
        values[outside] = _feistel(values[outside], side, keys)
    return values.astype(np.int64)


def mix(*numbers: int) -> int:
    """Return one seed of several numbers, so that close ones give unlike seeds."""
    value = 0x9E3779B97F4A7C15
    for number in numbers:
        value = ((value ^ (number & _MASK)) * 0xBF58476D1CE4E5B9 + 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value >> 1


def _feistel(values: Numbers, side: np.uint64, keys: Sequence[np.uint64]) -> Numbers:
    """Permute the numbers below side * side."""
    left, right = np.divmod(values, side)
    for key in keys:
        left, right = right, (left + _hashed(right ^ key)) % side
    joined: Numbers = left * side + right
    return joined


def _hashed(values: Numbers) -> Numbers:
    """Return 32 bits for each of `values` that depend on all of its bits (splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    hashed: Numbers = values >> np.uint64(32)
    return hashed


def _shares(weights: Sequence[float]) -> npt.NDArray[Any]:
    """Return how many rows of a block each weight gets: the largest remainders are rounded up."""
    given = np.asarray(weights, dtype=np.float64)
    if not given.size or not np.isfinite(given).all() or given.min() <= 0:
        raise ValueError(f"weights={[*weights]!r}: each source of a mixture has one above 0")
    exact = given / given.sum() * _BLOCK
    shares: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    most = np.argsort(shares - exact, kind="stable")
    shares[most[: _BLOCK - int(shares.sum())]] += 1
    if shares.min() < 1:
        least = given.sum() / _BLOCK
        raise ValueError(f"weights={[*weights]!r}: one is below {least:g}, and would get no row")
    return shares


_MASK = (1 << 64) - 1
