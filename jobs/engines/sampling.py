"""Which token comes next, for every row of a batch.

A row's token depends on its own scores, sampling and random numbers, never on its
neighbours.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.engine import Sampling

_COLDEST = 1e-5


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token; its log-probability and the likeliest others, where asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose(
    scores: Tensor, samplings: Sequence[Sampling], randoms: Sequence[random.Random]
) -> list[Choice]:
    """Return the choice for each row of `scores` (rows, vocabulary)."""
    tokens = scores.argmax(-1)
    hot = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if hot:
        sources = [randoms[row] for row in hot]
        drawn = _draw(scores[hot].float(), [samplings[row] for row in hot], sources)
        tokens[hot] = drawn
    choices = [Choice(token) for token in tokens.tolist()]
    asked = [row for row, sampling in enumerate(samplings) if sampling.logprobs is not None]
    if asked:
        logs = torch.log_softmax(scores[asked].float(), -1)
        for row, mine in zip(asked, logs, strict=True):
            choices[row] = _with_logprobs(mine, choices[row].token, samplings[row].logprobs or 0)
    return choices


def _draw(scores: Tensor, samplings: list[Sampling], randoms: list[random.Random]) -> Tensor:
    heat = scores.new_tensor([[max(sampling.temperature, _COLDEST)] for sampling in samplings])
    scores = scores - scores.amax(-1, keepdim=True)
    likely = torch.softmax(scores / heat, -1)
    if any(sampling.top_p < 1 for sampling in samplings):
        likely = _nucleus(likely, likely.new_tensor([[s.top_p] for s in samplings]))
    sums = likely.cumsum(-1)
    mass = sums[:, -1:]
    points = mass * mass.new_tensor([[source.random()] for source in randoms])
    points = torch.minimum(points, torch.nextafter(mass, torch.zeros_like(mass)))
    return torch.searchsorted(sums, points, right=True).squeeze(-1)


def _nucleus(likely: Tensor, top_p: Tensor) -> Tensor:
    """Keep the likeliest tokens whose probabilities reach `top_p` together."""
    ordered, order = likely.sort(-1, descending=True)
    before = ordered.cumsum(-1) - ordered
    ordered = ordered.masked_fill((before >= top_p) & (top_p < 1), 0)
    return torch.zeros_like(likely).scatter(-1, order, ordered)


def _with_logprobs(logs: Tensor, token: int, count: int) -> Choice:
    values, ids = logs.topk(min(count, logs.shape[-1]))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return Choice(token, logs[token].item(), top)
