"""Products of whole numbers, which every sound device has exactly: each element is compared.

With |a|, |b| <= 8 and 4,096 products a sum, all sums stay below 2**18: exact in float32, in any
order, and where float32 is multiplied as TF32; whole numbers up to 8 are exact in every format of
8 bits and more. Where a result is rounded to 16 bits, two neighbours in a sum nearly cancel: then
all partial sums stay below 256, which bfloat16 holds, however a kernel splits them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 8
LONGEST = 4096  # products of a sum
_EXACT_IN_FLOAT32 = 1 << 24  # float32 has every whole number up to here
_UNEQUAL = 32  # pairs of a sum that don't cancel


@dataclass(frozen=True, slots=True)
class Factors:
    """Whole numbers, float32 on the host: `lhs` [rows, inner], `rhs` [inner, columns]."""

    lhs: Tensor
    rhs: Tensor

    def product(self) -> Tensor:
        """Return the exact product [rows, columns], float64.

        numpy makes it, in float32 where that holds it: torch's own may be what is looked at.
        """
        lhs, rhs = self.lhs.numpy(), self.rhs.numpy()
        most = float(abs(lhs).max() * abs(rhs).max()) * lhs.shape[1]
        dtype = "float32" if most < _EXACT_IN_FLOAT32 else "float64"
        return torch.from_numpy(lhs.astype(dtype) @ rhs.astype(dtype)).double()

    def sums(self) -> tuple[Tensor, Tensor]:
        """Return the exact sums of the product's rows [rows] and columns [columns], float64."""
        lhs, rhs = self.lhs.double(), self.rhs.double()
        return lhs @ rhs.sum(1), lhs.sum(0) @ rhs


def plain(rows: int, inner: int, columns: int, *, seed: int, largest: int = LARGEST) -> Factors:
    """Return factors whose numbers are drawn from -largest to largest."""
    generator = torch.Generator().manual_seed(seed)
    return Factors(
        _drawn(largest, (rows, inner), generator), _drawn(largest, (inner, columns), generator)
    )


def paired(rows: int, inner: int, columns: int, *, seed: int) -> Factors:
    """Return factors whose product, and each partial sum of whole pairs, stays within 256.

    Columns 2j and 2j + 1 of `lhs` differ by 1 in few rows, and rows 2j and 2j + 1 of `rhs` by
    their sign.

    Raises:
        ValueError: `inner` is odd.
    """
    if inner % 2:
        raise ValueError(f"inner={inner!r} is odd, and pairs are wanted")
    pairs = inner // 2
    generator = torch.Generator().manual_seed(seed)
    lhs, rhs = (
        _drawn(LARGEST, (rows, pairs), generator),
        _drawn(LARGEST, (pairs, columns), generator),
    )
    apart = torch.rand((rows, pairs), generator=generator) < _UNEQUAL / max(pairs, 2 * _UNEQUAL)
    inwards = torch.where(lhs > 0, -1.0, 1.0)
    second = torch.where(apart, lhs + inwards, lhs)
    return Factors(
        torch.stack([lhs, second], 2).reshape(rows, inner),
        torch.stack([rhs, -rhs], 1).reshape(inner, columns),
    )


def _drawn(largest: int, shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    return torch.randint(-largest, largest + 1, shape, generator=generator).float()
