"""What changes the scores of an answer before a token is drawn: grammar, bias, penalties.

The order is vLLM's: what the grammar allows, `logit_bias`, `min_tokens`, and then the penalties:
for repetition of prompt and answer, for frequency and presence in the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from orchestrator.engine import Sampling

_FORBIDDING = -100.0  # a bias of so little leaves no chance
_BITS = 32


class ImpossibleError(ValueError):
    """What a request asks for leaves no token that could come next: its answer ends here."""


class Constraint(Protocol):
    """What allows some tokens and no others, after those that it has taken."""

    def mask(self) -> Tensor:
        """Return the tokens that are allowed, as bits of 32-bit numbers (words)."""
        ...

    def take(self, token: int) -> bool:
        """Go on by a token; return whether nothing can follow it."""
        ...


class Processor:
    """What changes the scores of one answer, and what it has to know for that.

    Args:
        sampling: How tokens are drawn.
        prompt: The tokens before the answer.
        constraint: What the answer must be like.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], constraint: Constraint | None
    ) -> None:
        self.sampling = sampling
        self.constraint = constraint
        self.generated = 0
        self.penalises = (
            sampling.repetition_penalty != 1
            or sampling.presence_penalty != 0
            or sampling.frequency_penalty != 0
        )
        self._prompt = prompt
        self._counts: Tensor | None = None
        self._seen: Tensor | None = None
        self._new: list[int] = []

    def take(self, token: int) -> bool:
        """Note a token of the answer; return whether the grammar lets nothing follow it."""
        self.generated += 1
        if self.penalises:
            self._new.append(token)
        return self.constraint is not None and self.constraint.take(token)

    def history(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return how often each token is in the answer, and which are in it or in the prompt."""
        if self._counts is None or self._seen is None:
            self._counts = like.new_zeros(like.shape[-1])
            self._seen = torch.zeros_like(self._counts, dtype=torch.bool)
            self._seen[torch.tensor(self._prompt, device=like.device)] = True
        if self._new:
            new = torch.tensor(self._new, device=like.device)
            self._counts.index_add_(0, new, torch.ones_like(new, dtype=like.dtype))
            self._seen[new] = True
            self._new.clear()
        return self._counts, self._seen


def needed(sampling: Sampling) -> bool:
    """Whether an answer's scores are changed at all."""
    return bool(
        sampling.grammar is not None
        or sampling.logit_bias
        or sampling.min_tokens
        or sampling.repetition_penalty != 1
        or sampling.presence_penalty
        or sampling.frequency_penalty
    )


def processed(
    scores: Tensor, processors: Sequence[Processor | None], ends: Collection[int]
) -> Tensor:
    """Return the scores (rows, vocabulary) to draw by; `ends` are the model's ends of text."""
    rows = [row for row, processor in enumerate(processors) if processor is not None]
    if not rows:
        return scores
    some = [processor for processor in processors if processor is not None]
    changed = scores[rows].float()
    _allow(changed, some)
    _bias(changed, some, ends)
    _penalise(changed, some)
    whole = scores.to(torch.float32, copy=True)
    whole[rows] = changed
    return whole


def _allow(scores: Tensor, processors: Sequence[Processor]) -> None:
    """Leave what grammars allow."""
    rows = [row for row, processor in enumerate(processors) if processor.constraint is not None]
    if not rows:
        return
    masks = torch.stack([p.constraint.mask() for p in processors if p.constraint is not None])
    bits = torch.arange(_BITS, dtype=torch.int32)
    allowed = (masks[:, :, None] >> bits & 1).flatten(1)[:, : scores.shape[-1]]
    forbidden = (allowed == 0).to(scores.device)
    scores[rows] = scores[rows].masked_fill(forbidden, -torch.inf)


def _bias(scores: Tensor, processors: Sequence[Processor], ends: Collection[int]) -> None:
    """Add biases, and forbid ends before their time."""
    places: list[tuple[int, int]] = []
    biases: list[float] = []
    for row, processor in enumerate(processors):
        sampling = processor.sampling
        for token, bias in sampling.logit_bias.items():
            places.append((row, token))
            biases.append(-torch.inf if bias <= _FORBIDDING else bias)
        if processor.generated < sampling.min_tokens and processor.constraint is None:
            early = {*ends, *sampling.stop_token_ids}
            places += [(row, token) for token in early]
            biases += [-torch.inf] * len(early)
    if places:
        at = torch.tensor(places, device=scores.device).unbind(1)
        scores.index_put_(at, scores.new_tensor(biases), accumulate=True)


def _penalise(scores: Tensor, processors: Sequence[Processor]) -> None:
    """Make tokens less likely that have come before."""
    rows = [row for row, processor in enumerate(processors) if processor.penalises]
    if not rows:
        return
    histories = [processors[row].history(scores) for row in rows]
    counts = torch.stack([counts for counts, _ in histories])
    seen = torch.stack([seen for _, seen in histories])
    samplings = [processors[row].sampling for row in rows]
    repetition = scores.new_tensor([[sampling.repetition_penalty] for sampling in samplings])
    frequency = scores.new_tensor([[sampling.frequency_penalty] for sampling in samplings])
    presence = scores.new_tensor([[sampling.presence_penalty] for sampling in samplings])
    mine = scores[rows]
    repeated = torch.where(mine > 0, mine / repetition, mine * repetition)
    mine = torch.where(seen, repeated, mine)
    scores[rows] = mine - frequency * counts - presence * (counts > 0)
