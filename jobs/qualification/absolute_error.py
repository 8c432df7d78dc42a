"""How far numbers are from those that are right, where some of them are infinite.

The difference of two equal infinities is no number, and one infinity among the right ones is
larger than any error: so neither may be subtracted, nor be what errors are measured by.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def absolute_error(actual: Tensor, expected: Tensor) -> Tensor:
    """Return the distance of each number from the right one, of the shape of both.

    Equal infinities are equal; an infinity beside anything else, and any NaN, is infinitely far.
    """
    finite = actual.isfinite() & expected.isfinite()
    apart = torch.where(finite, (actual - expected).abs(), math.inf)
    return torch.where(actual == expected, 0.0, apart)


def magnitude(expected: Tensor) -> Tensor:
    """Return how large each number is, of the same shape; 0 of what is not finite."""
    return expected.abs().nan_to_num(nan=0.0, posinf=0.0)
