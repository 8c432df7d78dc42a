"""How far two models are apart, as figures. Pure; log-probabilities are in nats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from jobs.data.reasoning import scorer
from jobs.parity.questions import Question
from orchestrator.engine import Score

_LEAST = 1e-6  # of probability: what float32 sums may lack of 1
_MOST_NATS = 700.0

Texts = Sequence[Sequence[Score]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """How far the model that is served is from the one that was trained.

    Attributes:
        nan: Places where a score is no number.
        tokenizer: Plain texts that it encodes otherwise.
        template: Chats and prompts that it renders or encodes otherwise.
        kl_mean: Mean of KL(trained, served) over places, nats.
        kl_p99: Its 99th percentile, nats.
        kl_max: Its maximum, nats.
        top1: Share of the places where both have the same likeliest token.
        perplexity: Relative change of the perplexity, without its sign.
        greedy: Share of the greedy answers that are the same text.
        accuracy: By how much fewer answers are right, as a share of all; 0 for plain texts.
        weights: Largest relative change of the norm of a block of weights.
        places: How many places were compared.
    """

    nan: float
    tokenizer: float
    template: float
    kl_mean: float
    kl_p99: float
    kl_max: float
    top1: float
    perplexity: float
    greedy: float
    accuracy: float
    weights: float
    places: float


def divergence(trained: Score, served: Score) -> float:
    """Return KL(trained, served) at a place, nats.

    Tokens that only one side kept are taken together with all others: that can only make the
    figure smaller than the true one, and it is exact where the whole vocabulary was kept.
    """
    theirs = dict(zip(served.top, served.logprobs, strict=True))
    both = [
        (log, theirs[token])
        for token, log in zip(trained.top, trained.logprobs, strict=True)
        if token in theirs
    ]
    rest = max(1.0 - sum(math.exp(one) for one, _ in both), _LEAST)
    other = max(1.0 - sum(math.exp(other) for _, other in both), _LEAST)
    known = sum(math.exp(one) * (one - other) for one, other in both)
    return max(known + rest * math.log(rest / other), 0.0)


def usable(score: Score) -> bool:
    """Whether all of a score are numbers. A token of probability 0 has minus infinity."""
    return not any(math.isnan(value) for value in (score.logprob, *score.logprobs))


def compare(trained: Texts, served: Texts) -> dict[str, float]:
    """Return the figures that scores alone tell: divergence, top-1, perplexity, no numbers."""
    pairs = [
        pair for texts in zip(trained, served, strict=True) for pair in zip(*texts, strict=True)
    ]
    good = [(one, other) for one, other in pairs if usable(other)]
    apart = sorted(divergence(one, other) for one, other in good) or [math.inf]
    before, after = (
        (perplexity([scores]) for scores in zip(*good, strict=True)) if good else (1, math.nan)
    )
    return {
        "nan": float(len(pairs) - len(good)),
        "kl_mean": sum(apart) / len(apart),
        "kl_p99": apart[math.ceil(0.99 * len(apart)) - 1],
        "kl_max": apart[-1],
        "top1": share(one.top[0] == other.top[0] for one, other in good),
        "perplexity": abs(after / before - 1.0),
        "places": float(len(pairs)),
    }


def perplexity(texts: Texts) -> float:
    """Return the perplexity over all places."""
    logs = [score.logprob for scores in texts for score in scores]
    return math.exp(min(-sum(logs) / max(len(logs), 1), _MOST_NATS))


def accuracy(
    task: str | None, questions: Sequence[Question], answers: Sequence[str]
) -> float | None:
    """Return the share of the answers that are right; `None` where there is no task."""
    if task is None:
        return None
    score = scorer(task)
    pairs = zip(questions, answers, strict=True)
    return share(score(text, question.example or {}) == 1.0 for question, text in pairs)


def share(found: Iterable[bool]) -> float:
    """Return which share is true; 0 of none."""
    seen = list(found)
    return sum(seen) / max(len(seen), 1)
