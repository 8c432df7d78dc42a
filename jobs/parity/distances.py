"""How far two models are apart at a place, and what is right. Log-probabilities are in nats."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from jobs.data.reasoning import scorer
from jobs.parity.questions import Question
from orchestrator.engine import Score

_LEAST = 1e-6  # of probability: what float32 sums may lack of 1
_MOST_LOG = 1e-3  # nats: what rounding may add to the log-probability of what is certain
MOST_NATS = 700.0

Texts = Sequence[Sequence[Score]]


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
    rest = max(1.0 - sum(math.exp(log_p) for log_p, _ in both), _LEAST)
    other = max(1.0 - sum(math.exp(log_q) for _, log_q in both), _LEAST)
    known = sum(
        math.exp(log_p) * difference(log_p, log_q) for log_p, log_q in both if math.exp(log_p)
    )
    return max(known + rest * math.log(rest / other), 0.0)


def difference(log_p: float, log_q: float) -> float:
    """Return by how much one log-probability is above another: of two equal infinities by 0."""
    return 0.0 if log_p == log_q else log_p - log_q


def usable(score: Score) -> bool:
    """Whether all of a score are log-probabilities: minus infinity is one, infinity is none."""
    return all(value <= _MOST_LOG for value in (score.logprob, *score.logprobs))


def perplexity(texts: Texts) -> float:
    """Return the perplexity over all places."""
    logs = [score.logprob for scores in texts for score in scores]
    return math.exp(min(-sum(logs) / max(len(logs), 1), MOST_NATS))


def right(
    task: str | None, questions: Sequence[Question], answers: Sequence[str]
) -> tuple[bool, ...]:
    """Return which of the answers are right; none where there is no task."""
    if task is None:
        return ()
    score = scorer(task)
    pairs = zip(questions, answers, strict=True)
    return tuple(score(text, question.example or {}) == 1.0 for question, text in pairs)


def share(outcomes: Iterable[bool]) -> float:
    """Return which share is true; 0 of none."""
    seen = list(outcomes)
    return sum(seen) / max(len(seen), 1)
