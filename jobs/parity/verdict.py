"""The thresholds, each with its floor and how sure it is, and the first that is not kept.

A figure that has a floor may be `factor` times what the trained model itself shows in another
arithmetic, and what its format is allowed beyond that; in no case more than what no honest model
of that format shows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from jobs.parity import confidence
from jobs.parity.comparison import Array, Comparison

_COIN = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Demands:
    """What is asked of a served model of one format.

    Attributes:
        limits: What no honest model shows, by figure; of `top1` and `greedy` the least.
        allowances: What a figure may be beyond `factor` times its floor; of `greedy` the share
            that may differ.
        factor: As said.
        confidence: How sure it is to be that a limit is kept.
    """

    limits: Mapping[str, float]
    allowances: Mapping[str, float]
    factor: float
    confidence: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """A figure with its limit: the most that it may be, or where `least` is set the least.

    `floor` is what the trained model itself shows in another arithmetic, `confidence` how sure it
    is that the limit is kept, and `target` how sure it is to be; none of them where nothing is
    left to chance.
    """

    name: str
    words: str
    value: float
    limit: float
    least: bool = False
    floor: float | None = None
    confidence: float | None = None
    target: float = 0.0
    texts: int = 0

    @property
    def within(self) -> bool:
        """Whether the value is within the limit; what is no number is not."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    @property
    def drowned(self) -> bool:
        """Whether noise alone breaks the limit, so that the value tells nothing."""
        if self.within or self.floor is None:
            return False
        return self.floor < self.limit if self.least else self.floor > self.limit

    @property
    def kept(self) -> bool:
        """Whether the limit is kept, and surely so."""
        return self.within and (self.confidence is None or self.confidence >= self.target)

    @property
    def wanted(self) -> int:
        """How many texts may make it sure, where the value stays as it is."""
        if self.kept or not self.within or self.confidence is None:
            return self.texts
        now = confidence.NORMAL.inv_cdf(min(max(self.confidence, 0.6), 0.999))
        return round(self.texts * (confidence.NORMAL.inv_cdf(self.target) / now) ** 2 + 0.5)


# Every figure that has a limit, in the order in which a sentence names the first that fails.
WORDS: Mapping[str, str] = MappingProxyType(
    {
        "nan": "places whose scores are no numbers",
        "tokenizer": "texts that the tokenizer encodes otherwise, and its other parts",
        "template": "chats that the chat template makes other tokens of, and another template",
        "ends": "tokens that end answers of one of the two alone",
        "config": "fields of the config that say otherwise what is computed",
        "generation": "fields of the generation config that are others",
        "record": "wrong statements on what is quantized, and how, for other readers",
        "weights": "largest relative change of the norm of a block of weights",
        "unquantized": "the same of the weights that are not quantized",
        "rows": "largest change of a row's sum of squares, over the root of fourth powers",
        "unquantized_rows": "the same of the weights that are not quantized",
        "sums": "largest change of a signed sum of a row or column, as a share of its norm",
        "unquantized_sums": "the same of the weights that are not quantized",
        "groups": "largest change of the largest of 32 weights of a row, in octaves",
        "top1": "share of places with the same likeliest token",
        "flips": "share of places where the reference is sure of a token and the model of another",
        "kl_mean": "mean KL divergence, nats",
        "kl_tail": "KL divergence at a high quantile (0.95 of few places, 0.999 of many), nats",
        "perplexity": "relative change of the perplexity",
        "routers": "share of the chosen experts that are others",
        "greedy": "share of greedy answers that are the same",
        "accuracy": "loss of task accuracy",
    }
)
LEAST = frozenset({"top1", "greedy"})
# Of these none is allowed, in any format.
EXACT = frozenset({"nan", "tokenizer", "template", "ends", "config", "generation", "record"})
# What limits lack that were written for an earlier version lets everything pass.
_LATER = {"groups": 64.0}
# Of these there is no floor.
ABSOLUTE = frozenset(
    {"weights", "rows", "sums", "unquantized", "unquantized_rows", "unquantized_sums"}
    | {"groups", "top1"}
)


def demands_of(
    form: str,
    limits: Mapping[str, Mapping[str, float]],
    allowances: Mapping[str, Mapping[str, float]],
    factor: float,
    sure: float,
) -> Demands:
    """Return what is asked of a format, a limit and an allowance for each figure.

    Raises:
        ValueError: The config has none for this format, lacks one, or has one too many; or a
            factor or a confidence is none.
    """
    wanted = WORDS.keys() - EXACT
    limits = {name: {**_LATER, **figures} for name, figures in limits.items()}
    limited = _of_format("limits", form, limits, wanted)
    allowed = _of_format("allowances", form, allowances, wanted - ABSOLUTE)
    if factor < 1.0:
        raise ValueError(f"factor={factor!r} asks for less than the noise itself; give 1 or more")
    if not _COIN < sure < 1.0:
        raise ValueError(f"confidence={sure!r} is not between {_COIN} and 1")
    return Demands(limits=limited, allowances=allowed, factor=factor, confidence=sure)


def _of_format(
    what: str, form: str, table: Mapping[str, Mapping[str, float]], wanted: set[str]
) -> Mapping[str, float]:
    if form not in table:
        known = ", ".join(sorted(table)) or "none"
        raise ValueError(f"{what} has none for format {form!r}; it has {known}")
    figures = dict(table[form])
    for name in sorted(figures.keys() ^ wanted):
        lack = "lacks" if name in wanted else "has no use for"
        raise ValueError(f"{what}.{form} {lack} {name!r}; it has {', '.join(sorted(wanted))}")
    return figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was measured.

    Attributes:
        served: The served model against the reference.
        floor: The trained model in other arithmetics against the reference.
        margins: Of the reference (places).
        counts: The figures that have no floor, by their names.
        seed: Of the draws.
    """

    served: Comparison
    floor: Sequence[Comparison]
    margins: Array
    counts: Mapping[str, float]
    seed: int


def thresholds(evidence: Evidence, demands: Demands) -> list[Threshold]:
    """Return each figure with its limit, its floor and how sure it is."""
    served, texts = evidence.served, len(evidence.served.differs)
    quantile = confidence.quantile_of(len(served.kl))
    draws = confidence.Draws(
        confidence.draw(texts, evidence.seed),
        confidence.sure(evidence.margins, evidence.floor, demands.factor, quantile),
        quantile,
    )
    values = confidence.figures_of(served, draws)
    floors = confidence.floor_of(
        [confidence.figures_of(comparison, draws) for comparison in evidence.floor]
    )
    judged: list[Threshold] = []
    for name, words in WORDS.items():
        key = "differs" if name == "greedy" else name
        if name in EXACT or name in ABSOLUTE:
            limit = 0.0 if name in EXACT else demands.limits[name]
            judged.append(
                Threshold(
                    name=name,
                    words=words,
                    value=evidence.counts[name],
                    limit=limit,
                    least=name in LEAST,
                )
            )
        elif key in values and (key in floors or name != "routers"):
            floor = floors.get(key, np.zeros_like(values[key]))
            judged.append(_judged(name, (values[key], floor), served, demands, texts))
    return judged


def _judged(
    name: str,
    figures: tuple[confidence.Values, confidence.Values],
    served: Comparison,
    demands: Demands,
    texts: int,
) -> Threshold:
    """Return a figure that has a floor; `figures` are its values and the floor's, drawn."""
    value, floor = figures
    most = 1.0 - demands.limits[name] if name in LEAST else demands.limits[name]
    limits = np.minimum(demands.factor * floor + demands.allowances[name], most)
    limit, now = float(limits[0]), float(value[0])
    if name == "greedy":
        sure = confidence.exact(int(served.differs.sum()), texts, limit)
    elif name == "accuracy":
        sure = confidence.paired(served.lost, limit)
    else:
        sure = confidence.drawn(value, limits)
    turned = name in LEAST
    return Threshold(
        name=name,
        words=WORDS[name],
        value=1.0 - now if turned else now,
        limit=1.0 - limit if turned else limit,
        least=turned,
        floor=1.0 - float(floor[0]) if turned else float(floor[0]),
        confidence=sure,
        target=demands.confidence,
        texts=texts,
    )


def sentence(judged: Sequence[Threshold], form: str, pool: str) -> str:
    """Return what is wrong, in one sentence; nothing where all limits are surely kept."""
    broken = [threshold for threshold in judged if not threshold.kept]
    worst = min(broken, key=lambda threshold: (threshold.within, threshold.drowned), default=None)
    return "" if worst is None else _sentence_of(worst, form, pool)


def _sentence_of(broken: Threshold, form: str, pool: str) -> str:
    limit = f"{'at least' if broken.least else 'at most'} {broken.limit:.4g}"
    figure = f"{broken.name} is {broken.value:.4g}, {limit} is allowed for {form}"
    if broken.within:
        return (
            f"undecided: {figure}, but {broken.texts} texts make that only "
            f"{broken.confidence:.1%} sure and {broken.target:.1%} is asked ({broken.words}): ask "
            f"the reference more questions, some {broken.wanted}"
        )
    if broken.drowned:
        return (
            f"undecided: {figure}, and noise alone makes it {broken.floor:.4g} ({broken.words}): "
            f"ask the reference more questions, or train the model longer"
        )
    floor = "" if broken.floor is None else f", {broken.floor:.4g} is its own noise"
    return (
        f"{figure}{floor}: the model on pool {pool!r} is not the one that was trained "
        f"({broken.words})"
    )
