"""Forward passes: from new tokens to the scores of the tokens that come next.

A pass reads the tokens of a span of the cache's rows, and returns the scores (rows, vocabulary)
after the last one of each row; or after each of them (rows, width, vocabulary), if `every`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from jobs.engines.cache import SlotCache, mask_of


class Forward(Protocol):
    """A forward pass over some weights."""

    def __call__(
        self, new: Sequence[Sequence[int]], cache: SlotCache, *, every: bool = False
    ) -> Tensor:
        """Read the `new` tokens of each row of the span that `cache` covers."""
        ...


class ModelForward:
    """The pass of a model as transformers has it: slow for small models, right for all."""

    def __init__(self, model: Any) -> None:  # noqa: ANN401 - any causal language model of transformers
        self._model = model

    def __call__(
        self, new: Sequence[Sequence[int]], cache: SlotCache, *, every: bool = False
    ) -> Tensor:
        """Read the `new` tokens of each row of the span that `cache` covers."""
        span, device = cache.span, self._model.device
        last = torch.tensor([[len(tokens) - 1] for tokens in new], device=device)
        scores: Tensor = self._model(
            input_ids=padded(new, span.width, device),
            attention_mask=self._mask(cache),
            position_ids=span.positions,
            past_key_values=cache.past,
            use_cache=True,
            logits_to_keep=0 if every else last,
        ).logits
        return scores if every else scores[:, 0]

    def _mask(self, cache: SlotCache) -> Tensor | dict[str, Tensor]:
        """Return a mask; one for each kind of layer, where a model has several."""
        masks = {w: mask_of(cache.span, self._model.dtype, w) for w in set(cache.windows)}
        if len(masks) < 2:  # noqa: PLR2004 - all layers see the same
            return next(iter(masks.values()))
        full = masks.pop(None)
        (sliding,) = masks.values()
        return {"full_attention": full, "sliding_attention": sliding}


def padded(new: Sequence[Sequence[int]], width: int, device: torch.device) -> Tensor:
    """Return the token ids (rows, width).

    What follows the end of a row is never seen. It is the row's own last token, so that no other
    one can spoil the row.
    """
    return torch.tensor([[*row, *[row[-1]] * (width - len(row))] for row in new], device=device)
