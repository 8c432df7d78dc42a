"""Rows of documents: how the tokens of a split become training samples of one length.

A row has one token more than the sequence that a model takes: the last is a label alone.

    cut    The split is one stream; row r has its tokens r * S to r * S + S inclusive, so that
           each token but the first is learnt once. Documents are cut where a row ends.
    whole  As many documents after one another as fit; what is left of a row is filled up. A
           document that is longer than a row is cut off.

Positions count from the beginning of each document in the row, by which a model keeps documents
apart; then nothing is learnt of a document's first token, which nothing comes before. Where a row
lies follows from the index: no table of rows is held of `cut`, and 8 bytes a row of `whole`, the
number of its first document.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from jobs.data.dataset import IGNORE, RowBatch
from jobs.data.tokens.shards import Shard
from jobs.data.tokens.stored_files import Bytes, StoredFile, read_spans
from orchestrator.job import DataError

CUT, WHOLE = "cut", "whole"
Ints = npt.NDArray[np.integer[Any]]


class RowPiece(NamedTuple):
    """Tokens `begin` to `end` of a shard, that go to a row from `place` on."""

    row: int
    place: int
    shard: int
    begin: int
    end: int


class TokenRows:
    """The rows of a split, read when they are asked for."""

    def __init__(
        self,
        shards: Sequence[Shard],
        masks: Sequence[Shard] | None,
        *,
        sequence: int,
        packing: str,
        apart: bool,
        pad: int,
    ) -> None:
        """Lay out the documents of `shards`.

        Args:
            shards: The tokens.
            masks: Which of them are to be learnt, in as many bytes; all where there is none.
            sequence: Tokens that a model takes at once, S.
            packing: `cut` or `whole`.
            apart: Whether positions begin anew with each document.
            pad: The token that rows are filled up with.
        """
        self._shards, self._masks = shards, masks
        self._sequence, self._apart, self._pad = sequence, apart, pad
        ends = np.cumsum([0, *(shard.tokens for shard in shards)], dtype=np.int64)
        self._ends = ends
        self._documents = np.cumsum([0, *map(len, shards)], dtype=np.int64)
        self._firsts = _first_documents(shards, sequence + 1) if packing == WHOLE else None
        cut = max(0, int(ends[-1]) - 1) // sequence
        self._size = cut if self._firsts is None else len(self._firsts)

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._size

    @property
    def width(self) -> int:
        """Tokens of a row."""
        return self._sequence + 1

    @property
    def reads_to_count(self) -> bool:
        """Whether labels are counted by what is read: masks say which there are."""
        return self._masks is not None

    def read(self, part: torch.Tensor) -> RowBatch:
        """Read some rows.

        Raises:
            DataError: A shard has become shorter than it was.
            OSError: A store failed for a minute.
        """
        numbers = part.tolist()
        pieces = [piece for at, number in enumerate(numbers) for piece in self._pieces(at, number)]
        tokens, real = self._filled(pieces, len(numbers))
        starts = self._starts(pieces, real)
        labels = np.where(real, tokens, IGNORE)
        if self._masks is not None:
            labels[~self._learnt(pieces, len(numbers))] = IGNORE
        if self._apart:
            labels[starts] = IGNORE
        return RowBatch(
            torch.from_numpy(tokens),
            torch.from_numpy(labels),
            torch.from_numpy(_positions(starts)) if self._apart else None,
            torch.from_numpy(real),
        )

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:  # noqa: ARG002 - of a protocol
        """Return how many tokens some rows have, and how many labels, without reading tokens.

        `pad` does not count: what fills a row up is known.
        """
        numbers = part.tolist()
        pieces = [piece for at, number in enumerate(numbers) for piece in self._pieces(at, number)]
        tokens = sum(piece.end - piece.begin for piece in pieces)
        if self._firsts is None:
            tokens -= len(numbers)  # the last of a row is the first of the next
        if self._masks is None:
            return tokens, self._unmasked(pieces, len(numbers))
        real = np.zeros((len(numbers), self.width), dtype=bool)
        for piece in pieces:
            real[piece.row, piece.place : piece.place + piece.end - piece.begin] = True
        learnt = self._learnt(pieces, len(numbers))
        if self._apart:
            learnt[self._starts(pieces, real)] = False
        return tokens, int(learnt[:, 1:].sum())

    def _unmasked(self, pieces: Sequence[RowPiece], rows: int) -> int:
        """Return how many labels rows have of which all tokens are to be learnt."""
        labels = sum(piece.end - piece.begin for piece in pieces) - rows
        return labels - sum(
            int((self._inner(piece) + piece.place > 0).sum()) for piece in pieces if self._apart
        )

    def _inner(self, piece: RowPiece) -> Ints:
        """Return where documents start in a piece, from its beginning."""
        return self._shards[piece.shard].starts_between(piece.begin, piece.end) - piece.begin

    def _pieces(self, row: int, number: int) -> Iterator[RowPiece]:
        """Yield the pieces of row `number`, which is row `row` of a batch."""
        if not 0 <= number < self._size:
            raise IndexError(f"row {number!r} of {self._size!r}")
        if self._firsts is not None:
            yield self._whole_documents(row, number, self._firsts)
            return
        begin = number * self._sequence
        end = begin + self._sequence + 1
        shard = int(np.searchsorted(self._ends, begin, side="right")) - 1
        place = begin
        while place < end:
            first, last = int(self._ends[shard]), int(self._ends[shard + 1])
            if stop := max(0, min(end, last) - place):
                yield RowPiece(row, place - begin, shard, place - first, place - first + stop)
            place += stop
            shard += 1

    def _whole_documents(self, row: int, number: int, firsts: Ints) -> RowPiece:
        """Return the documents of a row from its first to before that of the next row."""
        first = int(firsts[number])
        shard = int(np.searchsorted(self._documents, first, side="right")) - 1
        before, after = int(self._documents[shard]), int(self._documents[shard + 1])
        if number + 1 < self._size:
            after = min(after, int(firsts[number + 1]))
        begin = self._shards[shard].start(first - before)
        end = self._shards[shard].start(after - before)
        return RowPiece(row, 0, shard, begin, min(end, begin + self.width))

    def _filled(
        self, pieces: Sequence[RowPiece], rows: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
        tokens = np.full((rows, self.width), self._pad, dtype=np.int32)
        real = np.zeros((rows, self.width), dtype=bool)
        for piece, content in zip(pieces, self._contents(self._shards, pieces), strict=True):
            values = content.view(self._shards[piece.shard].type)
            tokens[piece.row, piece.place : piece.place + len(values)] = values
            real[piece.row, piece.place : piece.place + len(values)] = True
        return tokens, real

    def _learnt(self, pieces: Sequence[RowPiece], rows: int) -> npt.NDArray[np.bool_]:
        learnt = np.zeros((rows, self.width), dtype=bool)
        contents = self._contents(self._masks or (), pieces)
        for piece, content in zip(pieces, contents, strict=True):
            learnt[piece.row, piece.place : piece.place + len(content)] = content != 0
        return learnt

    @staticmethod
    def _contents(shards: Sequence[Shard], pieces: Sequence[RowPiece]) -> list[Bytes]:
        spans: list[tuple[StoredFile, int, int]] = [
            shards[piece.shard].span(piece.begin, piece.end) for piece in pieces
        ]
        return read_spans(spans)

    def _starts(
        self, pieces: Sequence[RowPiece], real: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        """Return which tokens begin a document, or what fills a row up."""
        starts = np.zeros_like(real)
        starts[:, 0] = True
        starts[:, 1:] = real[:, :-1] & ~real[:, 1:]
        for piece in pieces:
            starts[piece.row, self._inner(piece) + piece.place] = True
        return starts


def _positions(starts: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Return how far each token is from the last one that begins a document."""
    places = np.broadcast_to(np.arange(starts.shape[1], dtype=np.int32), starts.shape)
    positions: npt.NDArray[np.int32] = places - np.maximum.accumulate(
        np.where(starts, places, 0), axis=1
    )
    return positions


def _first_documents(shards: Sequence[Shard], width: int) -> npt.NDArray[np.int64]:
    """Return the first document of each row of whole ones, numbered over all shards, [rows]."""
    firsts = array("q")
    before = 0
    for shard in shards:
        edges = np.append(shard.starts, shard.tokens)
        first = 0
        while first < len(shard):
            firsts.append(before + first)
            after = int(np.searchsorted(edges, int(edges[first]) + width, side="right")) - 1
            first = max(after, first + 1)
        before += len(shard)
    return np.frombuffer(firsts, dtype=np.int64) if firsts else np.zeros(0, dtype=np.int64)


def check_masks(shards: Sequence[Shard], masks: Sequence[Shard] | None) -> None:
    """Refuse masks of other documents than those of the tokens.

    Raises:
        DataError: One has others.
    """
    for shard, mask in zip(shards, masks or (), strict=False):
        same = mask.tokens == shard.tokens and np.array_equal(mask.starts, shard.starts)
        if mask.type.itemsize != 1 or not same:
            raise DataError(f"{mask.name} is no mask of {shard.name}: their documents differ")
