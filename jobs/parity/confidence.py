"""Figures of a comparison, and how sure it is that they stay within a limit.

Texts are drawn anew many times, whole, since the places of a text are not independent, and the
same ones for the served model and for the floor. Of what happens in a text or does not, the
confidence is exact: texts in which nothing happened tell little where they are few.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from jobs.parity.comparison import Comparison

ROUNDS = 1000
_FAR = (0.999, 0.99, 0.95)  # quantiles that stand for the largest, the last of few places
_ABOVE = 5  # places that are to lie above a quantile
_LOGS = 50.0  # nats, of a mean: what is more is as far

Values = npt.NDArray[np.float64]
NORMAL = NormalDist()
CHANCE = "chance"  # how far the perplexity may be by chance, of texts that shift at random


@dataclass(frozen=True, slots=True)
class Draws:
    """How often each text is taken (rounds, texts), first each once, and which places count.

    Attributes:
        repeats: As said.
        sure: 1 of places where the reference is sure of its likeliest token (places).
        quantile: That stands for the largest divergence.
    """

    repeats: Values
    sure: npt.NDArray[np.float32]
    quantile: float


def draw(texts: int, seed: int) -> Values:
    """Return how often each text is taken (rounds, texts): each once, then at random."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(texts, np.full(texts, 1.0 / texts), size=ROUNDS)
    return np.concatenate([np.ones((1, texts)), drawn])


def quantile_of(places: int) -> float:
    """Return the quantile that stands for the largest of so many.

    Some places lie above it, so that a single one, drawn twice, does not decide.
    """
    return next(
        (quantile for quantile in _FAR if places * (1.0 - quantile) >= _ABOVE - 1e-9), _FAR[-1]
    )


def sure(
    margins: npt.NDArray[np.float32], floor: Sequence[Comparison], factor: float, quantile: float
) -> npt.NDArray[np.float32]:
    """Return 1 where the reference's margin is above what noise does to margins (places)."""
    noise = max(
        (float(np.quantile(comparison.margin, quantile)) for comparison in floor), default=0.0
    )
    return (margins > factor * noise).astype(np.float32)


def figures_of(comparison: Comparison, draws: Draws) -> Mapping[str, Values]:
    """Return each figure that has a floor, for each draw of texts (rounds)."""
    repeats = draws.repeats
    texts = repeats.shape[1]

    def summed(values: npt.NDArray[np.float32]) -> Values:
        totals: Values = repeats @ np.bincount(comparison.text.astype(int), values, texts)
        return totals

    places = np.maximum(summed(np.ones_like(comparison.kl)), 1.0)
    by_text = np.bincount(comparison.text.astype(int), comparison.shift, texts)
    shifts = np.clip(repeats @ by_text / places, -_LOGS, _LOGS)
    error = np.sqrt(repeats @ by_text**2) / places  # of their mean, where texts shift at random
    figures = {
        "kl_mean": summed(comparison.kl) / places,
        "kl_tail": _tail(comparison, draws),
        "flips": summed((1.0 - comparison.same) * draws.sure) / places,
        "perplexity": np.abs(np.expm1(shifts)),
        CHANCE: np.expm1(np.minimum(2.0 * error, _LOGS)),
    }
    if comparison.routed.size:
        figures["routers"] = summed(comparison.routed) / places
    if comparison.differs.size:
        figures["differs"] = repeats @ comparison.differs / texts
    if comparison.lost.size:
        figures["accuracy"] = np.maximum(repeats @ comparison.lost / texts, 0.0)
    return figures


def floor_of(passes: Sequence[Mapping[str, Values]]) -> Mapping[str, Values]:
    """Return the worst of the floor's passes, for each figure and draw (rounds).

    The shifts of a pass may cancel out by chance: its perplexity is as far as two standard errors.
    """
    names = {name for figures in passes for name in figures}
    worst = {
        n: np.maximum.reduce([figures[n] for figures in passes if n in figures]) for n in names
    }
    chance = worst.pop(CHANCE, None)
    if chance is not None:
        worst["perplexity"] = np.maximum(worst["perplexity"], chance)
    return worst


def drawn(value: Values, limit: Values) -> float:
    """Return in which share of the draws a value is within its limit."""
    return float(np.mean(value <= limit))


def exact(happened: int, texts: int, limit: float) -> float:
    """Return how sure it is that something happens in at most a share `limit` of all texts.

    It is 1 less the probability of no more than was seen, were the share the limit itself
    (Clopper and Pearson's bound).
    """
    if not 0.0 < limit < 1.0:
        return float(limit >= 1.0 or (happened == 0 and limit > 0.0))
    logs = [
        math.lgamma(texts + 1)
        - math.lgamma(k + 1)
        - math.lgamma(texts - k + 1)
        + k * math.log(limit)
        + (texts - k) * math.log1p(-limit)
        for k in range(happened + 1)
    ]
    return max(1.0 - math.fsum(map(math.exp, logs)), 0.0)


def paired(lost: npt.NDArray[np.float32], limit: float) -> float:
    """Return how sure it is that at most a share `limit` more answers are lost than won.

    Of pairs of answers, with half a pair of each kind more than there are (Agresti and Min).
    """
    worse, better, texts = (lost > 0).sum() + 0.5, (lost < 0).sum() + 0.5, len(lost) + 2.0
    net = (worse - better) / texts
    error = math.sqrt(max(worse + better - (worse - better) ** 2 / texts, 0.0)) / texts
    return NORMAL.cdf((limit - net) / error)


def _tail(comparison: Comparison, draws: Draws) -> Values:
    """Return the high quantile of the divergence, for each draw (rounds)."""
    above = 1.0 - draws.quantile
    places = len(comparison.kl)
    most = min(places, int(places * above * 8) + 64)  # enough, however texts are drawn
    order = np.argsort(-comparison.kl, kind="stable")[:most]
    text = comparison.text.astype(int)
    counts = np.bincount(text, minlength=draws.repeats.shape[1])
    total = draws.repeats @ counts
    passed = draws.repeats[:, text[order]].cumsum(1) > above * total[:, None] + 1e-9
    at = np.where(passed.any(1), passed.argmax(1), most - 1)
    tail: Values = comparison.kl[order][at].astype(np.float64)
    return tail
