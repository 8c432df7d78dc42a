"""A key-value cache whose rows hold answers of different lengths.

Row `i` belongs to the i-th answer of the batch; a forward pass covers a run of neighbouring rows.
What a row holds beyond its own length is masked, never cleared. The buffers grow by doubling, so
that memory follows what is used.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache


@dataclass(slots=True)
class Span:
    """What the next forward pass covers: rows `start` to `stop`, and positions in each."""

    start: int
    stop: int
    positions: Tensor
    length: int


class _Layer:
    """Keys and values of one layer: what `transformers.Cache` asks of its layers."""

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self._buffers: list[Tensor] = []

    def update(self, keys: Tensor, values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        """Store the new keys and values, and return all that the rows of the span hold."""
        span = self._cache.span
        self._fit(span, (keys, values))
        rows = torch.arange(span.start, span.stop, device=keys.device)[:, None]
        for buffer, new in zip(self._buffers, (keys, values), strict=True):
            buffer[rows, :, span.positions] = new.transpose(1, 2)
        held = [buffer[span.start : span.stop, :, : span.length] for buffer in self._buffers]
        return held[0], held[1]

    def move(self, source: int, target: int) -> None:
        """Copy a row over another."""
        for buffer in self._buffers:
            buffer[target] = buffer[source]

    def get_seq_length(self) -> int:
        """Return 0: positions are given with every pass."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and offset of a mask; unused, since masks are given too."""
        return query_length, 0

    def _fit(self, span: Span, like: tuple[Tensor, Tensor]) -> None:
        rows, length = self._buffers[0].shape[0::2] if self._buffers else (0, 0)
        if span.stop <= rows and span.length <= length:
            return
        rows = max(rows, _rounded(span.stop, 1))
        length = max(length, min(_rounded(span.length, 64), self._cache.max_context))
        grown = [new.new_zeros(rows, new.shape[1], length, new.shape[3]) for new in like]
        for old, new in zip(self._buffers, grown, strict=False):
            new[: old.shape[0], :, : old.shape[2]] = old
        self._buffers = grown


class SlotCache:
    """The cache of a batch, as a model takes it (`past`)."""

    def __init__(self, layers: int, max_context: int) -> None:
        self.max_context = max_context
        self.span = Span(0, 0, torch.empty(0, dtype=torch.long), 0)
        self._layers = [_Layer(self) for _ in range(layers)]
        self.past = Cache(layers=self._layers)

    def move(self, source: int, target: int) -> None:
        """Copy the row of an answer over that of another, which is gone."""
        for layer in self._layers:
            layer.move(source, target)


def fitting_context(config: object, wanted: int) -> tuple[int, int]:
    """Return the number of layers, and the context that a row of full attention can hold.

    Within its window, sliding attention is full attention.

    Raises:
        ValueError: The model keeps a state of another kind.
    """
    layers = DynamicCache(config=config).layers
    for layer in layers:
        kind = type(layer).__name__
        if kind not in {"DynamicLayer", "DynamicSlidingWindowLayer"}:
            raise ValueError(f"a cache layer of kind {kind!r} is not supported by this engine")
        wanted = min(wanted, getattr(layer, "sliding_window", wanted))
    return len(layers), wanted


def _rounded(size: int, least: int) -> int:
    return max(least, 1 << (size - 1).bit_length())
