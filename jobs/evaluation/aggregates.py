"""What a figure of lm-evaluation-harness is of its questions, and between what it surely is.

A harness says how good each question was, and a figure of all. Whatever of the kinds here gives
that figure is what is drawn anew; what none gives has no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

from jobs.evaluation.intervals import interval, ratio_interval, strata_interval

# Of each question a value, and what it counts: 1 of a score, its words or bytes of a likelihood.
Pairs: TypeAlias = Sequence[tuple[float, float]]

_CLOSE = 1e-9
# A mean; a perplexity, and bits, of log-likelihoods.
_KINDS: tuple[Callable[[float], float], ...] = (
    lambda mean: mean,
    lambda mean: math.exp(min(-mean, 700.0)),
    lambda mean: -mean / math.log(2),
)


def ends_of(value: float, tasks: Sequence[Pairs]) -> tuple[float, float] | None:
    """Return between what a figure of a task, or of several, surely is; `None` of other kinds."""
    if len(tasks) == 1:
        return _of_task(value, tasks[0])
    if not tasks or any(count != 1.0 for pairs in tasks for _, count in pairs):
        return None
    strata = [[number for number, _ in pairs] for pairs in tasks]
    means = [math.fsum(values) / len(values) for values in strata]
    of_all = math.fsum(map(math.fsum, strata)) / sum(map(len, strata))
    for by_size, mean in ((True, of_all), (False, math.fsum(means) / len(means))):
        if _same(mean, value):
            return strata_interval(strata, by_size=by_size)
    return None


def _of_task(value: float, pairs: Pairs) -> tuple[float, float] | None:
    values, counts = [number for number, _ in pairs], [count for _, count in pairs]
    if min(counts) <= 0:
        return None
    mean = math.fsum(values) / math.fsum(counts)
    kind = next((kind for kind in _KINDS if _same(kind(mean), value)), None)
    if kind is None:
        return None
    plain = all(count == 1.0 for count in counts)
    ends = interval(values) if plain else ratio_interval(values, counts)
    low, high = sorted(map(kind, ends))
    return low, high


def _same(mean: float, value: float) -> bool:
    return math.isclose(mean, value, rel_tol=_CLOSE, abs_tol=_CLOSE)
