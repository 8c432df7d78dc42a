"""How far a model is from the reference, place by place and text by text, as arrays.

One such comparison is of the served model; others are of the trained model itself in another
arithmetic: the noise floor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import numpy.typing as npt

from jobs.parity.distances import MOST_NATS, Texts, difference, divergence, usable
from orchestrator.engine import Score

Array = npt.NDArray[np.float32]
NOTHING: Array = np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Responses:
    """What a model says to all questions.

    Attributes:
        scores: Of each question the scores of what follows its prompt.
        answers: Its greedy answers, one a question; empty where it was not asked for them.
        right: Which of them are right; empty where there is no task.
        experts: Of each question the chosen experts (places, layers, k); empty where untold.
    """

    scores: Texts
    answers: Sequence[str] = ()
    right: Sequence[bool] = ()
    experts: Sequence[npt.NDArray[np.int32]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A model against the reference.

    Attributes:
        text: To which text a place belongs (places).
        kl: KL(reference, model), nats (places).
        shift: By how much less likely the token of the text is, nats (places).
        margin: By how much the distance of the reference's two likeliest tokens is another, nats
            (places).
        same: 1 where both have the same likeliest token (places).
        routed: Share of the chosen experts that are others (places); empty where untold.
        differs: 1 where the greedy answer is another text (texts); empty where not asked.
        lost: 1 where the reference alone is right, -1 where the model alone is (texts); as above.
    """

    text: Array
    kl: Array
    shift: Array
    margin: Array
    same: Array
    routed: Array = field(default_factory=NOTHING.copy)
    differs: Array = field(default_factory=NOTHING.copy)
    lost: Array = field(default_factory=NOTHING.copy)


NAMES = tuple(field.name for field in fields(Comparison))


def compare(reference: Responses, other: Responses) -> Comparison:
    """Return how far `other` is from the reference; a score that is no number is very far."""
    pairs = [
        (text, *pair)
        for text, texts in enumerate(zip(reference.scores, other.scores, strict=True))
        for pair in zip(*texts, strict=True)
    ]
    rows = [(text, *_of_place(score, other)) for text, score, other in pairs]
    columns = np.array(rows, np.float32).reshape(-1, 5).T.copy()
    text, kl, shift, margin, same = columns
    answers = zip(reference.answers, other.answers, strict=True) if other.answers else ()
    right = zip(reference.right, other.right, strict=True) if other.right else ()
    experts = zip(reference.experts, other.experts, strict=True) if other.experts else ()
    return Comparison(
        text=text,
        kl=kl,
        shift=shift,
        margin=margin,
        same=same,
        routed=np.concatenate([NOTHING, *(_routed(*pair) for pair in experts)]),
        differs=np.array([before != after for before, after in answers], np.float32),
        lost=np.array([float(before) - float(after) for before, after in right], np.float32),
    )


def margins(reference: Texts) -> Array:
    """Return how much likelier the likeliest token is than the next, nats (places)."""
    nats = [
        _margin(score, score) if usable(score) else MOST_NATS
        for scores in reference
        for score in scores
    ]
    return np.array(nats, np.float32)


def arrays(comparison: Comparison) -> Mapping[str, Array]:
    """Return the arrays by their names."""
    return {name: getattr(comparison, name) for name in NAMES}


def _of_place(reference: Score, other: Score) -> tuple[float, float, float, float]:
    if not (usable(reference) and usable(other)):
        return MOST_NATS, MOST_NATS, MOST_NATS, 0.0
    moved = abs(_margin(reference, other) - _margin(reference, reference))
    return (
        min(divergence(reference, other), MOST_NATS),
        max(min(difference(reference.logprob, other.logprob), MOST_NATS), -MOST_NATS),
        min(moved, MOST_NATS),
        float(reference.top[0] == other.top[0]),
    )


def _margin(reference: Score, other: Score) -> float:
    """Return how much likelier `other` finds the first of the reference's tokens than the next.

    A token that it did not keep is taken to be as likely as the last that it kept.
    """
    if len(reference.top) == 1:
        return MOST_NATS
    known = dict(zip(other.top, other.logprobs, strict=True))
    first, second = (known.get(token, other.logprobs[-1]) for token in reference.top[:2])
    return max(min(difference(first, second), MOST_NATS), -MOST_NATS)


def _routed(reference: npt.NDArray[np.int32], other: npt.NDArray[np.int32]) -> Array:
    """Return which share of the chosen experts (places, layers, k) are others (places)."""
    if reference.shape != other.shape:
        return np.ones(len(reference), np.float32)
    chosen = reference >= 0
    both = (reference[..., :, None] == other[..., None, :]).any(-1) & chosen
    shares = 1.0 - both.sum((1, 2)) / np.maximum(chosen.sum((1, 2)), 1)
    changed: Array = shares.astype(np.float32)
    return changed
