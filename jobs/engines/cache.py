"""A key-value cache whose rows hold answers of different lengths, within a budget.

Row `i` belongs to the i-th answer of the batch; a forward pass covers a run of neighbouring rows.
What a row holds beyond its own length is masked. The buffers grow by a share of themselves and
shrink when little of them is used, so that memory follows what is held; they never grow beyond the
budget, and where there is no memory to grow, they stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, DynamicCache

TOKENS_AT_ONCE = 64  # by which a row's memory grows at least
SPARE = 4  # times what is needed: as much as the buffers hold before they shrink
IDLE = 8  # the part of the budget that an idle cache keeps


class CacheFullError(RuntimeError):
    """The budget has no room for what is asked for."""


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


class _LayerCache:
    """Keys and values of one layer: what `transformers.Cache` asks of its layers."""

    def __init__(self, cache: SlotCache) -> None:
        self._cache = cache
        self._flat: list[Tensor] = []
        self.buffers: list[Tensor] = []

    @property
    def cell(self) -> int:
        """Bytes of a token; 0 until the first one is stored."""
        return sum(b.shape[1] * b.shape[3] * b.element_size() for b in self.buffers)

    def update(self, keys: Tensor, values: Tensor, *_: object) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows, heads, width, size); return all of the span's rows."""
        return self.store(keys.transpose(1, 2).flatten(0, 1), values.transpose(1, 2).flatten(0, 1))

    def store(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store new keys and values (rows * width, heads, size); return as `update` does."""
        span = self._cache.span
        if not self.buffers:
            rows, capacity = self._cache.shape
            like = (keys, values)
            self.take([n.new_zeros(rows, n.shape[1], capacity, n.shape[2]) for n in like])
        places = self._cache.places(keys.shape[1])
        for flat, new in zip(self._flat, (keys, values), strict=True):
            flat.index_copy_(0, places, new.flatten(0, 1))
        held = [buffer[span.start : span.stop, :, : span.length] for buffer in self.buffers]
        return held[0], held[1]

    def resized(self, rows: int, capacity: int, kept: tuple[int, int]) -> list[Tensor]:
        """Return buffers of another shape, with the `kept` (rows, tokens) of the present ones."""
        resized = []
        for old in self.buffers:
            new = old.new_zeros(rows, old.shape[1], capacity, old.shape[3])
            new[: kept[0], :, : kept[1]] = old[: kept[0], :, : kept[1]]
            resized.append(new)
        return resized

    def take(self, buffers: list[Tensor]) -> None:
        """Use these buffers (rows, heads, tokens, size) from now on."""
        self.buffers = buffers
        self._flat = [buffer.flatten(0, 2) for buffer in buffers]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first tokens of a row over those of another."""
        for buffer in self.buffers:
            buffer[target, :, :length] = buffer[source, :, :length]

    def wipe(self, row: int) -> None:
        """Clear a row."""
        for buffer in self.buffers:
            buffer[row] = 0

    def get_seq_length(self) -> int:
        """Return 0: positions are given with every pass."""
        return 0

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the length and offset of a mask; unused, since masks are given too."""
        return query_length, 0


class SlotCache:
    """The cache of a batch, as a model takes it (`past`).

    Attributes:
        shape: Rows, and tokens a row, that there is memory for.
        layers: The layers, in the order of the model's.
        windows: How far back each layer sees, itself included; `None` where it sees all.
        budget: Tokens that there may be memory for, padding included; `None` for any number.
    """

    span: Span

    def __init__(
        self,
        windows: Sequence[int | None],
        max_context: int,
        device: torch.device,
        budget: int | None = None,
    ) -> None:
        self.shape = (0, 0)
        self.windows = tuple(windows)
        self.layers = [_LayerCache(self) for _ in windows]
        self.past = Cache(layers=self.layers)
        self.budget = budget
        self._max_context = max_context
        self._device = device
        self._places: dict[int, Tensor] = {}

    @property
    def cell(self) -> int:
        """Bytes of a token over all layers; 0 until the first one is stored."""
        return sum(layer.cell for layer in self.layers)

    def cover(self, start: int, cached: Sequence[int], width: int) -> Span:
        """Begin a pass: `width` new tokens in each row from `start` on, which `cached` some."""
        stop, length = start + len(cached), max(cached) + width
        if stop > self.shape[0] or length > self.shape[1]:
            self.reserve(max(stop, self.shape[0]), max(length, self.shape[1]))
        first = torch.tensor(cached, device=self._device)[:, None]
        positions = first + torch.arange(width, device=self._device)
        self.span = Span(start, stop, width, length, not any(cached), positions)
        self._places.clear()
        return self.span

    def reserve(self, rows: int, length: int) -> None:
        """Have memory for so many rows of so many tokens, and not for many times as much.

        Raises:
            CacheFullError: That is more than the budget.
            RuntimeError: There is no memory for it; all is as before.
        """
        held_rows, capacity = self.shape
        spare = SPARE * max(rows * length, TOKENS_AT_ONCE)
        if not rows:
            if self.budget is not None and held_rows * capacity > self.budget // IDLE:
                self._resize(0, 0)
            return
        fits = rows <= held_rows and length <= capacity
        if fits and held_rows * capacity <= 2 * spare:
            return
        longest = min(_grown(length, TOKENS_AT_ONCE), self._max_context)
        wanted = (max(held_rows, _grown(rows, 1)), max(capacity, longest))
        if wanted[0] * wanted[1] > min(spare, self._most()):
            wanted = (_grown(rows, 1), max(length, longest))
        if wanted[0] * wanted[1] > self._most():
            wanted = (rows, length)
        if rows * length > self._most():
            raise CacheFullError(
                f"the cache of {self.budget} tokens has no room for {rows} rows of {length}"
            )
        if wanted != self.shape:
            self._resize(*wanted)

    def places(self, heads: int) -> Tensor:
        """Return where the pass puts its tokens, a head each, in a buffer without dimensions."""
        if heads not in self._places:
            span, capacity = self.span, self.shape[1]
            begins = torch.arange(span.start * heads, span.stop * heads, device=self._device)
            begins = (begins * capacity).view(-1, 1, heads)
            self._places[heads] = (span.positions[..., None] + begins).flatten()
        return self._places[heads]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the first tokens of a row over those of another."""
        for layer in self.layers:
            layer.copy(source, target, length)

    def wipe(self, row: int) -> None:
        """Clear a row that holds what is no number: masked, it would still spoil what it meets."""
        for layer in self.layers:
            layer.wipe(row)

    def _most(self) -> float:
        return float("inf") if self.budget is None else self.budget

    def _resize(self, rows: int, capacity: int) -> None:
        """Take memory for another shape; where there is none, all is as before."""
        kept = (min(rows, self.shape[0]), min(capacity, self.shape[1]))
        resized = [layer.resized(rows, capacity, kept) for layer in self.layers]
        for layer, buffers in zip(self.layers, resized, strict=True):
            layer.take(buffers)
        self.shape = (rows, capacity)


def mask_of(span: Span, dtype: torch.dtype, window: int | None = None) -> Tensor:
    """Return what to add to the attention of a pass: the least number where nothing is seen.

    A token sees itself and all before it, or the last `window` of these.
    """
    seen = torch.arange(span.length, device=span.positions.device)
    own = span.positions[:, None, :, None]
    hidden = seen > own
    if window is not None:
        hidden |= seen <= own - window
    mask = torch.zeros(hidden.shape, dtype=dtype, device=hidden.device)
    return mask.masked_fill_(hidden, torch.finfo(dtype).min)


def windows_of(config: object, max_context: int) -> list[int | None]:
    """Return how far back each layer sees; `None` where that is as far as `max_context`.

    Raises:
        ValueError: The model keeps a state of another kind, or sees in chunks that are shorter.
    """
    windows: list[int | None] = []
    for layer in DynamicCache(config=config).layers:
        kind = type(layer).__name__
        if kind not in {"DynamicLayer", "DynamicSlidingWindowLayer"}:
            raise ValueError(f"a cache layer of kind {kind!r} is not supported by this engine")
        window = getattr(layer, "sliding_window", None)
        windows.append(None if window is None or window >= max_context else int(window))
    chunk = getattr(config, "attention_chunk_size", None)
    if chunk is not None and chunk < max_context and any(windows):
        raise ValueError(
            f"this model sees in chunks of {chunk} tokens, which this engine can't do: "
            f"ask for max_context={chunk} or less"
        )
    return windows


def _grown(size: int, step: int) -> int:
    """Return a multiple of `step` that leaves `size` room to grow by an eighth."""
    return -(-(size + size // 8) // step) * step
