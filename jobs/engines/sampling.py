"""Which token comes next, for every row of a batch.

A row's token depends on its own scores, sampling and random numbers, never on its
neighbours. The order is vLLM's: temperature, `min_p`, `top_k`, `top_p`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from orchestrator.engine import Sampling

_COLDEST = 1e-5
_SEEDS = 1 << 64


@dataclass(frozen=True, slots=True)
class ChosenToken:
    """A chosen token; its log-probability and the likeliest others, where asked for."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def randomness(seed: int | None) -> random.Random:
    """Return the random numbers of a seed; each seed has its own, and -1 is none."""
    own = None if seed is None or seed == -1 else seed % _SEEDS
    return random.Random(own)  # noqa: S311 - draws tokens, guards nothing


def choose(
    scores: Tensor,
    samplings: Sequence[Sampling],
    randoms: Sequence[random.Random],
    own: Tensor | None = None,
) -> list[ChosenToken]:
    """Return the choice for each row of `scores` (rows, vocabulary), which are finite or `-inf`.

    Log-probabilities are those of `own`, the model's own scores, where these are others.
    """
    tokens = scores.argmax(-1)
    hot = [row for row, sampling in enumerate(samplings) if sampling.temperature > 0]
    if hot:
        sources = [randoms[row] for row in hot]
        drawn = _draw(scores[hot].float(), [samplings[row] for row in hot], sources)
        tokens[hot] = drawn
    choices = [ChosenToken(token) for token in tokens.tolist()]
    asked = [row for row, sampling in enumerate(samplings) if sampling.logprobs is not None]
    if asked:
        logs = torch.log_softmax((scores if own is None else own)[asked].float(), -1)
        for row, mine in zip(asked, logs, strict=True):
            choices[row] = _with_logprobs(mine, choices[row].token, samplings[row].logprobs or 0)
    return choices


def likelihoods(scores: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Return how likely each token of a row is drawn (rows, vocabulary), up to a factor a row."""
    heat = scores.new_tensor([[max(sampling.temperature, _COLDEST)] for sampling in samplings])
    scores = scores - scores.amax(-1, keepdim=True)
    likely = torch.softmax(scores / heat, -1)
    if any(sampling.min_p > 0 for sampling in samplings):
        least = likely.new_tensor([[sampling.min_p] for sampling in samplings])
        likely = likely.masked_fill(likely < least * likely.amax(-1, keepdim=True), 0)
    if any(sampling.top_p < 1 or sampling.top_k > 0 for sampling in samplings):
        likely = _likeliest(likely, samplings)
    return likely


def _draw(
    scores: Tensor, samplings: Sequence[Sampling], randoms: Sequence[random.Random]
) -> Tensor:
    sums = likelihoods(scores, samplings).cumsum(-1)
    mass = sums[:, -1:]
    points = mass * mass.new_tensor([[source.random()] for source in randoms])
    points = torch.minimum(points, torch.nextafter(mass, torch.zeros_like(mass)))
    return torch.searchsorted(sums, points, right=True).squeeze(-1)


def _likeliest(likely: Tensor, samplings: Sequence[Sampling]) -> Tensor:
    """Keep the `top_k` likeliest tokens, and of these such as reach `top_p` together.

    What is as likely as the last one of `top_k` stays too.
    """
    ordered, order = likely.sort(-1, descending=True)
    if any(sampling.top_k > 0 for sampling in samplings):
        last = likely.shape[-1]
        ranks = [[min(sampling.top_k or last, last) - 1] for sampling in samplings]
        least = ordered.gather(-1, torch.tensor(ranks, device=likely.device))
        ordered = ordered.masked_fill(ordered < least, 0)
    top_p = likely.new_tensor([[sampling.top_p] for sampling in samplings])
    sums = ordered.cumsum(-1)
    beyond = (sums - ordered >= top_p * sums[:, -1:]) & (top_p < 1)
    ordered = ordered.masked_fill(beyond, 0)
    return torch.zeros_like(likely).scatter(-1, order, ordered)


def _with_logprobs(logs: Tensor, token: int, count: int) -> ChosenToken:
    values, ids = logs.topk(min(count, logs.shape[-1]))
    top = tuple(zip(ids.tolist(), values.tolist(), strict=True))
    return ChosenToken(token, logs[token].item(), top)
