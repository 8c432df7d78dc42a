"""The file format of a shard of tokens: Megatron's indexed dataset, `NAME.bin` and `NAME.idx`.

    NAME.bin  tokens, document after document, as `uint16` or `int32`, little-endian
    NAME.idx  magic (9 bytes), version (8), type (1), sequences S (8), documents + 1 (8);
              S lengths in tokens (int32), S places in bytes (int64), and the number of the first
              sequence of each document, closed by S (int64)

What is written here has one sequence a document. A shard that others have written may have
several; documents alone are read. `int32` stands for any vocabulary that 16 bits do not hold.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
import numpy.typing as npt

from jobs.data.tokens.stored_files import StoredFile, mapped, open_file
from orchestrator.job import DataError

Ints = npt.NDArray[np.integer[Any]]

BIN, IDX = ".bin", ".idx"
SMALL_VOCABULARY = 65_500  # below it, Megatron takes 16 bits
_MAGIC, _VERSION = b"MMIDIDX\x00\x00", 1
_HEADER = struct.Struct("<9sQBQQ")
_TYPES = {1: "u1", 2: "i1", 3: "<i2", 4: "<i4", 5: "<i8", 8: "<u2"}
_CODES = {np.dtype(name): code for code, name in _TYPES.items()}


def type_for(vocabulary: int) -> np.dtype[Any]:
    """Return the type of tokens below `vocabulary`."""
    return np.dtype("<u2" if vocabulary < SMALL_VOCABULARY else "<i4")


@dataclass(slots=True)
class ShardWriter:
    """Writes `prefix.bin`, and `prefix.idx` when it is closed without an error.

    Attributes:
        prefix: Path of the files, without their endings.
        type: Of the tokens.
        lengths: Tokens of each document so far.
        highest: The greatest token so far, -1 before the first.
    """

    prefix: Path
    type: np.dtype[Any]
    lengths: list[int] = field(default_factory=list)
    highest: int = -1
    _stream: IO[bytes] = field(init=False)

    def __post_init__(self) -> None:
        """Open the file of tokens."""
        self._stream = Path(f"{self.prefix}{BIN}").open("wb")  # noqa: SIM115 - closed with self

    def add(self, tokens: Sequence[int] | Ints) -> None:
        """Write one document of at least one token.

        Raises:
            ValueError: It has none, or one that the type does not hold.
        """
        wide = np.asarray(tokens, dtype=np.int64)
        bounds = np.iinfo(self.type)
        if not wide.size or wide.min() < 0 or wide.max() > bounds.max:
            raise ValueError(f"a document of tokens in [0, {bounds.max}] has at least one of them")
        self._stream.write(wide.astype(self.type).tobytes())
        self.lengths.append(wide.size)
        self.highest = max(self.highest, int(wide.max()))

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(
        self,
        kind: object,
        error: BaseException | None,
        trace: object,
    ) -> None:
        """Close the tokens, and write the index."""
        self._stream.close()
        if error is None:
            self._write_index()

    def _write_index(self) -> None:
        lengths = np.asarray(self.lengths, dtype="<i4")
        count = len(lengths)
        places = np.zeros(count, dtype="<i8")
        np.cumsum(lengths[:-1], dtype=np.int64, out=places[1:])
        head = _HEADER.pack(_MAGIC, _VERSION, _CODES[self.type], count, count + 1)
        parts = (lengths, places * self.type.itemsize, np.arange(count + 1, dtype="<i8"))
        with Path(f"{self.prefix}{IDX}").open("wb") as stream:
            stream.write(head)
            stream.writelines(part.tobytes() for part in parts)


class Shard:
    """A shard that is read: its index lies in memory or is mapped, its tokens stay where they are.

    Attributes:
        name: Where it lies, without the endings.
        type: Of its tokens.
        tokens: How many it has.
        file: The file of tokens.
    """

    def __init__(self, name: str) -> None:
        """Open `name.idx` and `name.bin`, which may lie in a store.

        Raises:
            DataError: One is no such file, is empty, or is not as long as the index says.
        """
        self.name = name
        head, arrays = _index_of(f"{name}{IDX}")
        self.type = np.dtype(_TYPES[head.code])
        lengths, places, firsts = arrays
        same = (len(firsts), int(firsts[-1])) == (head.sequences + 1, head.sequences)
        begins = firsts[:-1]
        if not same and begins.size and not 0 <= begins.min() <= begins.max() < head.sequences:
            raise DataError(
                f"{name}{IDX} is damaged: a document begins at a sequence that is none of its "
                f"{head.sequences:,}"
            )
        self._places = places if same else places[begins]  # of documents, in bytes
        end = int(places[-1]) + int(lengths[-1]) * self.type.itemsize if lengths.size else 0
        self.tokens = end // self.type.itemsize
        self.file = open_file(f"{name}{BIN}")
        if self.file.size != end:
            cut = "is cut short" if self.file.size < end else "does not belong to its index"
            raise DataError(
                f"{name}{BIN} {cut}: it has {self.file.size:,} bytes, and its index says {end:,}"
            )

    def __len__(self) -> int:
        """Return the number of documents."""
        return len(self._places)

    @property
    def starts(self) -> Ints:
        """Where each document begins, in tokens, int64 [documents]."""
        return self._places // self.type.itemsize

    def start(self, number: int) -> int:
        """Return where document `number` begins, in tokens; after the last one all end."""
        if number == len(self):
            return self.tokens
        return int(self._places[number]) // self.type.itemsize

    def span(self, begin: int, end: int) -> tuple[StoredFile, int, int]:
        """Return where tokens `begin` to `end` lie: the file, and a range of its bytes."""
        return self.file, begin * self.type.itemsize, end * self.type.itemsize

    def starts_between(self, begin: int, end: int) -> Ints:
        """Return where documents start that do so in tokens `begin` to `end` of the shard."""
        size = self.type.itemsize
        # numpy's own search would copy all of a map that is not aligned, which none is
        low = bisect_left(self._places, begin * size)
        high = bisect_left(self._places, end * size, lo=low)
        inside: Ints = self._places[low:high] // size
        return inside


@dataclass(frozen=True, slots=True)
class _IndexHead:
    code: int
    sequences: int
    firsts: int


def _index_of(path: str) -> tuple[_IndexHead, tuple[Ints, Ints, Ints]]:
    """Return what an index says: lengths, places in bytes, first sequences of documents."""
    content = mapped(path)
    if not content.size:
        raise DataError(f"{path} is empty: the shard was never finished")
    if content.size < _HEADER.size or content[: len(_MAGIC)].tobytes() != _MAGIC:
        raise DataError(f"{path} is no index of tokens: it does not begin with {_MAGIC!r}")
    _, version, code, sequences, firsts = _HEADER.unpack(content[: _HEADER.size].tobytes())
    if version != _VERSION or code not in _TYPES or firsts < 1:
        raise DataError(f"{path} has version {version!r} and type {code!r}, which are not read")
    sizes = (sequences * 4, sequences * 8, firsts * 8)
    if content.size < _HEADER.size + sum(sizes):
        raise DataError(
            f"{path} is cut short: it has {content.size:,} bytes, and says that it has "
            f"{_HEADER.size + sum(sizes):,}"
        )
    edges = np.cumsum((_HEADER.size, *sizes))
    lengths, places, starts = (
        content[begin:end].view(kind)
        for begin, end, kind in zip(edges, edges[1:], ("<i4", "<i8", "<i8"), strict=False)
    )
    return _IndexHead(code, sequences, firsts), (lengths, places, starts)
