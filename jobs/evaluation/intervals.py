"""Shares of right answers, and between what they surely are: intervals of 95 %.

Of values that are all 0 or 1 the interval is Wilson's (1927); of others (a share of several
answers, a score) it is from the 2.5th to the 97.5th percentile of the means of questions drawn
anew (Efron's bootstrap).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_ROUNDS = 2000


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Return how probable it is that one of `k` answers is right, of `samples` that were drawn.

    The unbiased estimator of Chen et al., "Evaluating Large Language Models Trained on Code"
    (2021), equation 1: `1 - C(samples - right, k) / C(samples, k)`.

    Raises:
        ValueError: `k` is not from 1 to `samples`.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k={k!r} is not from 1 to samples={samples!r}: pass@k needs k answers")
    return 1.0 - math.comb(samples - right, k) / math.comb(samples, k)


def majority(answers: Sequence[str]) -> int:
    """Return the place of the answer that most agree on; of several such, the first to come."""
    ((most, _),) = Counter(answers).most_common(1)
    return list(answers).index(most)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return between what the mean is, of all questions of the kind that these are drawn from."""
    if all(value in {0.0, 1.0} for value in values):
        return wilson(sum(value == 1.0 for value in values), len(values))
    sample = np.asarray(values, np.float64)
    drawn = np.random.default_rng(0).integers(len(sample), size=(_ROUNDS, len(sample)))
    low, high = np.quantile(sample[drawn].mean(1), (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
    return float(low), float(high)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Return Wilson's interval of a share; all of 0 to 1 where nothing was counted."""
    if not count:
        return 0.0, 1.0
    share, square = right / count, _Z**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    half = _Z * spread / (1 + square / count)
    return (middle - half if right else 0.0), (middle + half if right < count else 1.0)


def with_interval(name: str, values: Sequence[float]) -> dict[str, float]:
    """Return the mean of `values` as `name`, with `name_low` and `name_high`."""
    low, high = interval(values)
    mean = math.fsum(values) / max(len(values), 1)
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
