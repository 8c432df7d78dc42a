"""A key-value cache whose rows hold answers of different lengths.

Row `i` belongs to the i-th answer of the batch; a forward pass covers a run of neighbouring rows.
What a row holds beyond its own length is masked, never cleared. The buffers grow by a share of
themselves, so that memory follows what is used, and a batch that has reached its size allocates
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

TOKENS_AT_ONCE = 64  # by which a row's memory grows at least


@dataclass(frozen=True, slots=True)
class Span:
    """What a forward pass covers.

    Attributes:
        start: Its first row.
        stop: The row after its last.
        width: New tokens a row, the shorter ones padded.
        length: Tokens of the longest row, the new ones included.
        fresh: Whether all rows were empty.
        positions: Where the new tokens stand in their rows (rows, width).
    """

    start: int
    stop: int
    width: int
    length: int
    fresh: bool
    positions: Tensor


class _Layer:
    """Keys and values of one layer: what `transformers.Cache` asks of its layers."""

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self._buffers: list[Tensor] = []
        self._flat: list[Tensor] = []
        self._shape = (0, 0)

    def update(self, keys: Tensor, values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows, heads, width, size); return all of the span's rows."""
        return self.store(keys.transpose(1, 2).flatten(0, 1), values.transpose(1, 2).flatten(0, 1))

    def store(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows * width, heads, size); return as `update` does."""
        span, shape = self._cache.span, self._cache.shape
        if self._shape != shape:
            self._fit(keys, values)
        places = self._cache.places(keys.shape[1])
        for flat, new in zip(self._flat, (keys, values), strict=True):
            flat.index_copy_(0, places, new.flatten(0, 1))
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

    def _fit(self, *like: Tensor) -> None:
        rows, capacity = self._cache.shape
        grown = [new.new_zeros(rows, new.shape[1], capacity, new.shape[2]) for new in like]
        for old, new in zip(self._buffers, grown, strict=False):
            new[: old.shape[0], :, : old.shape[2]] = old
        self._buffers = grown
        self._flat = [buffer.flatten(0, 2) for buffer in grown]
        self._shape = self._cache.shape


class SlotCache:
    """The cache of a batch, as a model takes it (`past`).

    Attributes:
        shape: Rows, and tokens a row, that there is memory for.
        layers: The layers, in the order of the model's.
    """

    span: Span

    def __init__(self, layers: int, max_context: int, device: torch.device) -> None:
        self.shape = (0, 0)
        self.layers = [_Layer(self) for _ in range(layers)]
        self.past = Cache(layers=self.layers)
        self._max_context = max_context
        self._device = device
        self._places: dict[int, Tensor] = {}

    def cover(self, start: int, held: Sequence[int], width: int) -> Span:
        """Begin a pass: `width` new tokens in each row from `start` on, which `held` some."""
        stop, length = start + len(held), max(held) + width
        rows, capacity = self.shape
        if stop > rows:
            rows = _grown(stop, 1)
        if length > capacity:
            capacity = min(_grown(length, TOKENS_AT_ONCE), self._max_context)
        self.shape = (rows, capacity)
        first = torch.tensor(held, device=self._device)[:, None]
        positions = first + torch.arange(width, device=self._device)
        self.span = Span(start, stop, width, length, not any(held), positions)
        self._places.clear()
        return self.span

    def places(self, heads: int) -> Tensor:
        """Return where the pass puts its tokens, a head each, in a buffer without dimensions."""
        if heads not in self._places:
            span, capacity = self.span, self.shape[1]
            begins = torch.arange(span.start * heads, span.stop * heads, device=self._device)
            begins = (begins * capacity).view(-1, 1, heads)
            self._places[heads] = (span.positions[..., None] + begins).flatten()
        return self._places[heads]

    def move(self, source: int, target: int) -> None:
        """Copy the row of an answer over that of another, which is gone."""
        for layer in self.layers:
            layer.move(source, target)


def mask_of(span: Span, dtype: torch.dtype) -> Tensor:
    """Return what to add to the attention of a pass: the least number where nothing is seen."""
    seen = torch.arange(span.length, device=span.positions.device)
    hidden = seen > span.positions[:, None, :, None]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)


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


def _grown(size: int, step: int) -> int:
    """Return a multiple of `step` that leaves `size` room to grow by an eighth."""
    return -(-(size + size // 8) // step) * step
