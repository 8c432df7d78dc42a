"""Shares of right answers, and between what they surely are: intervals of 95 %.

Of values that are all 0 or 1 the interval is Wilson's (1927); of others (a share of several
answers, a score, a loss) it is from the 2.5th to the 97.5th percentile of what questions or texts
drawn anew give (Efron's bootstrap).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from statistics import NormalDist
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Values: TypeAlias = npt.NDArray[np.float64]

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_ROUNDS = 2000
_AT_ONCE = 2**22  # questions that are drawn


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
    return _ends(_sums([sample])[0] / len(sample))


def ratio_interval(totals: Sequence[float], counts: Sequence[float]) -> tuple[float, float]:
    """Return between what the sum of `totals` over that of `counts` is, of other texts.

    Both are of each text, as its loss and its tokens; all counts are above 0.
    """
    return _ends(np.divide(*_sums([np.asarray(each, np.float64) for each in (totals, counts)])))


def strata_interval(
    strata: Sequence[Sequence[float]], *, by_size: bool = True
) -> tuple[float, float]:
    """Return between what the mean over several tasks is, each drawn by itself.

    It is that of all questions, or without `by_size` that of the tasks' means. Of right and wrong
    it is made of the tasks' own intervals, by the method of variance estimates recovery (Zou and
    Donner, 2008): drawn anew, tasks that are all right would be so for sure.
    """
    shares = np.asarray([len(values) if by_size else 1 for values in strata], np.float64)
    weights = shares / shares.sum()
    means = np.asarray([math.fsum(values) / len(values) for values in strata])
    if all(value in {0.0, 1.0} for values in strata for value in values):
        ends = np.asarray([interval(values) for values in strata])
        off = np.sqrt((weights**2) @ (ends - means[:, None]) ** 2)
        middle = float(weights @ means)
        return middle - float(off[0]), middle + float(off[1])
    generator = np.random.default_rng(0)
    samples = [np.asarray(values, np.float64) for values in strata]
    drawn = [_sums([values], generator)[0] / len(values) for values in samples]
    return _ends(weights @ np.stack(drawn))


def _sums(columns: Sequence[Values], generator: np.random.Generator | None = None) -> list[Values]:
    """Return the sum of each column [questions] where its questions are drawn anew [rounds].

    All columns are of the same questions. A part of the rounds is drawn at a time.
    """
    draws, count = generator or np.random.default_rng(0), len(columns[0])
    at_once = max(1, _AT_ONCE // count)
    sums = []
    for begin in range(0, _ROUNDS, at_once):
        drawn = draws.integers(count, size=(min(at_once, _ROUNDS - begin), count))
        sums.append([column[drawn].sum(1) for column in columns])
    return [np.concatenate(parts) for parts in zip(*sums, strict=True)]


def _ends(values: Values) -> tuple[float, float]:
    low, high = np.quantile(values, (0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2))
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
