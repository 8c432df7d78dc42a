"""Forward passes: from new tokens to the scores of the tokens that come next.

A pass reads the tokens of a span of the cache's rows, and returns the scores (rows, vocabulary)
after the last one of each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from jobs.engines.cache import SlotCache, mask_of


class Forward(Protocol):
    """A forward pass over some weights."""

    def __call__(self, new: Sequence[Sequence[int]], cache: SlotCache) -> Tensor:
        """Read the `new` tokens of each row of the span that `cache` covers."""
        ...


class ModelForward:
    """The pass of a model as transformers has it: slow for small models, right for all."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - any causal language model of transformers
        self._model = model

    def __call__(self, new: Sequence[Sequence[int]], cache: SlotCache) -> Tensor:
        """Read the `new` tokens of each row of the span that `cache` covers."""
        span, device = cache.span, self._model.device
        last = torch.tensor([[len(tokens) - 1] for tokens in new], device=device)
        scores: Tensor = self._model(
            input_ids=padded(new, span.width, device),
            attention_mask=mask_of(span, self._model.dtype),
            position_ids=span.positions,
            past_key_values=cache.past,
            use_cache=True,
            logits_to_keep=last,
        ).logits
        return scores[:, 0]


def padded(new: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Return the token ids (rows, width); what follows the end of a row is never seen."""
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in new], device=device)
