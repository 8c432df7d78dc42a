"""The thresholds, and the first that is not kept, in one sentence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from jobs.parity.figures import Figures


@dataclass(frozen=True, slots=True)
class Threshold:
    """A figure with its limit: the most that it may be, or where `least` is set the least."""

    name: str
    words: str
    value: float
    limit: float
    least: bool

    @property
    def kept(self) -> bool:
        """Whether the value is within the limit; what is no number is not."""
        return self.value >= self.limit if self.least else self.value <= self.limit


# Every figure that has a limit, in the order in which a sentence names the first that fails.
WORDS: Mapping[str, str] = {
    "nan": "places whose scores are no numbers",
    "tokenizer": "texts that the tokenizer encodes otherwise",
    "template": "chats that the chat template makes other tokens of",
    "weights": "largest relative change of the norm of a block of weights",
    "top1": "share of places with the same likeliest token",
    "kl_mean": "mean KL divergence, nats",
    "kl_p99": "KL divergence at the 99th percentile, nats",
    "kl_max": "largest KL divergence, nats",
    "perplexity": "relative change of the perplexity",
    "greedy": "share of greedy answers that are the same",
    "accuracy": "loss of task accuracy",
}
LEAST = frozenset({"top1", "greedy"})
EXACT = frozenset({"nan", "tokenizer", "template"})  # of these none is allowed, in any format


def limits_of(form: str, limits: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the limits of a format, one for each figure.

    Raises:
        ValueError: The config has none for this format, lacks one, or has one too many.
    """
    if form not in limits:
        known = ", ".join(sorted(limits)) or "none"
        raise ValueError(f"limits has none for format {form!r}; it has {known}")
    found = dict(limits[form])
    wanted = WORDS.keys() - EXACT
    for name in sorted(found.keys() ^ wanted):
        what = "lacks" if name in wanted else "has no use for"
        raise ValueError(f"limits.{form} {what} {name!r}; it has {', '.join(sorted(wanted))}")
    return {**dict.fromkeys(EXACT, 0.0), **found}


def thresholds(figures: Figures, limits: Mapping[str, float]) -> list[Threshold]:
    """Return each figure with its limit."""
    values: dict[str, float] = asdict(figures)
    return [
        Threshold(name, words, values[name], limits[name], name in LEAST)
        for name, words in WORDS.items()
    ]


def sentence(found: list[Threshold], form: str, pool: str) -> str:
    """Return what is wrong, in one sentence; nothing where all limits are kept."""
    return next(_broken(found, form, pool), "")


def _broken(found: list[Threshold], form: str, pool: str) -> Iterator[str]:
    for one in found:
        if not one.kept:
            limit = "at least" if one.least else "at most"
            yield (
                f"{one.name} is {one.value:.4g}, {limit} {one.limit:g} is allowed for {form}: "
                f"the model on pool {pool!r} is not the one that was trained ({one.words})"
            )
