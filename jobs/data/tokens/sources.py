"""Documents of files that lie on a disk or in a store, in parts that workers share.

A file of lines (JSON Lines, or text by lines) is cut at bytes, a Parquet file between its row
groups; one that is compressed, and a text as a whole, is one part. What a worker reads of a file
of lines are the bytes of its part. A folder as the Hugging Face hub has it (Parquet, JSON Lines),
or as `datasets` saves it (Arrow), is read as it is: where its files name splits, one of these.
"""

from __future__ import annotations

import json
import lzma
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any

import fsspec
import pyarrow as pa
from fsspec.compression import compr
from fsspec.utils import infer_compression
from pyarrow import parquet

from jobs.data.splits import TRAIN
from jobs.data.tokens.source_splits import ALL, SAVED, splits_of
from jobs.data.tokens.stored_files import asking, is_remote, open_stream
from orchestrator.job import DataError

RECORDS, LINES, TEXT, PARQUET, ARROW = "records", "lines", "text", "parquet", "arrow"
_KINDS = {
    ".jsonl": RECORDS,
    ".ndjson": RECORDS,
    ".json": RECORDS,
    ".txt": TEXT,
    ".text": TEXT,
    ".md": TEXT,
    ".parquet": PARQUET,
    ".arrow": ARROW,
}
_COMPRESSED = {".gz", ".zst", ".xz"}
# What `datasets` and the hub put beside the data.
_NOT_DATA = {
    *(SAVED, "dataset_info.json", "dataset_infos.json", "state.json"),
    "README.md",
}
_CHUNK = 1 << 22  # bytes that are read of a file at once
_BATCH = 256  # records of a table at once
# Of a `.json` that has no record a line.
_ONE_ARRAY = "; where the file is one array, write its records a line each (jq -c '.[]')"
_DAMAGED = (pa.ArrowException, zlib.error, lzma.LZMAError, EOFError)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePart:
    """A part of a file.

    Attributes:
        path: Path or address of the file.
        kind: How it is read.
        begin: Where it begins: a byte of a file of lines, a row group of Parquet, else 0.
        end: Where it ends, likewise; -1 is with the file.
        size: Bytes of the file.
    """

    path: str
    kind: str
    begin: int = 0
    end: int = -1
    size: int = 0


def parts_of(
    sources: Sequence[str],
    *,
    size: int,
    lines: bool,
    split: str = TRAIN,
    tell: Callable[[str], object] = lambda _: None,
) -> list[SourcePart]:
    """Return the parts of files, folders and patterns, about `size` bytes each, in a fixed order.

    Args:
        sources: Files and patterns, which are read as they are, and folders.
        size: Bytes of a part.
        lines: Whether each line of a text is a document.
        split: Of a folder whose files name splits; `all` is every file.
        tell: Told what of a folder is left out.

    Raises:
        DataError: There is no file that could be read, or no such split.
    """
    parts: list[SourcePart] = []
    for source in sources:
        files = _files(source)
        if not files.sizes:
            known = ", ".join(sorted(_KINDS))
            raise DataError(f"{source} has no file to read: they end with {known}")
        for path, length in files.of_split(source, split, tell):
            parts += _cut(path, length, size, lines=lines)
    return parts


def documents_of(part: SourcePart, column: str) -> Iterator[Mapping[str, Any]]:
    """Yield the records of a part; of a text its documents, as `{"text": ...}`.

    Of tables `column` alone is read.

    Raises:
        DataError: What it has can't be read.
    """
    with _damage_named(part.path):
        yield from _tables(part, column) if part.kind in {PARQUET, ARROW} else _records(part)


def _records(part: SourcePart) -> Iterator[Mapping[str, Any]]:
    hint = _ONE_ARRAY if ".json" in PurePosixPath(part.path).suffixes[-2:] else ""
    for place, content in _contents(part):
        begins = f"{part.path}: what begins at byte {place:,} is no"
        try:
            text = content.decode("utf-8")
            record = json.loads(text) if part.kind == RECORDS else {"text": text}
        except ValueError as error:
            what = "UTF-8" if isinstance(error, UnicodeDecodeError) else f"JSON{hint}"
            raise DataError(f"{begins} {what}") from error
        if not isinstance(record, dict):
            raise DataError(f"{begins} JSON object{hint}")
        yield record


@dataclass(frozen=True, slots=True)
class _SourceFiles:
    """The files of a source that can be read.

    Attributes:
        sizes: In bytes, by address.
        within: Addresses by paths within the folder; nothing where the source is none.
        saved: Whether the folder is one that `DatasetDict.save_to_disk` has written.
    """

    sizes: Mapping[str, int]
    within: Mapping[str, str]
    saved: bool

    def of_split(
        self, source: str, split: str, tell: Callable[[str], object]
    ) -> Iterator[tuple[str, int]]:
        """Yield those of a split, with their sizes, in the order of their names.

        Raises:
            DataError: Files name splits, and not this one.
        """
        splits = splits_of(sorted(self.within), saved=self.saved)
        if split == ALL or not self.within or (not splits and split == TRAIN):
            yield from sorted(self.sizes.items())
            return
        if split not in splits:
            named = f"files name {', '.join(map(repr, splits))}" if splits else "no file names any"
            raise DataError(f"{source} has no split {split!r}: {named}; {ALL!r} is every file")
        chosen = splits[split]
        if others := len(self.within) - len(chosen):
            tell(
                f"{source}: {len(chosen):,} files of split {split!r} are read, {others:,} others "
                f"are not; split={ALL!r} reads every file"
            )
        for path in chosen:
            yield self.within[path], self.sizes[self.within[path]]


def _files(source: str) -> _SourceFiles:
    store, inside = fsspec.core.url_to_fs(source)
    scheme = f"{source.partition('://')[0]}://" if is_remote(source) else ""
    folder = ""
    if any(mark in inside for mark in "*?["):
        known = asking(source, lambda: store.glob(inside, detail=True))
    elif asking(source, lambda: store.isfile(inside)):
        known = {inside: asking(source, lambda: store.info(inside))}
    else:
        known = asking(source, lambda: store.find(inside, detail=True))
        folder = f"{inside.rstrip('/')}/"
    sizes: dict[str, int] = {}
    within: dict[str, str] = {}
    for name, facts in known.items():
        path = PurePosixPath(name)
        hidden = path.name.startswith((".", "_")) or path.name in _NOT_DATA
        if facts["type"] == "file" and not hidden and _kind(path):
            sizes[f"{scheme}{name}"] = int(facts["size"])
            if folder:
                within[name.removeprefix(folder)] = f"{scheme}{name}"
    return _SourceFiles(sizes, within, saved=f"{folder}{SAVED}" in known)


def _kind(path: PurePosixPath) -> str:
    ends = [end for end in path.suffixes[-2:] if end not in _COMPRESSED]
    return _KINDS.get(ends[-1], "") if ends else ""


def _cut(path: str, length: int, size: int, *, lines: bool) -> Iterator[SourcePart]:
    kind = _kind(PurePosixPath(path))
    kind = LINES if kind == TEXT and lines else kind
    if kind == PARQUET:
        yield from _cut_parquet(path, length, size)
    elif kind in {TEXT, ARROW} or PurePosixPath(path).suffix in _COMPRESSED:
        yield SourcePart(path=path, kind=kind, size=length)
    else:
        for begin in range(0, length, size):
            end = min(begin + size, length)
            yield SourcePart(path=path, kind=kind, begin=begin, end=end, size=length)


def _cut_parquet(path: str, length: int, size: int) -> Iterator[SourcePart]:
    with _damage_named(path), _opened(path) as stream:
        facts = parquet.ParquetFile(stream).metadata
        groups = [facts.row_group(n).total_byte_size for n in range(facts.num_row_groups)]
    begin, held = 0, 0
    for number, group in enumerate(groups, start=1):
        held += group
        if held >= size or number == len(groups):
            yield SourcePart(path=path, kind=PARQUET, begin=begin, end=number, size=length)
            begin, held = number, 0


def _contents(part: SourcePart) -> Iterator[tuple[int, bytes]]:
    """Yield the documents of a part as bytes, each with the byte that it begins at."""
    chunks = _whole(part.path) if part.end < 0 else _range(part)
    if part.kind == TEXT:
        yield 0, b"".join(chunks)
        return
    place = max(0, part.begin - 1)
    skips = part.begin > 0  # up to the end of the line that the part before has
    held = b""
    for chunk in chunks:
        *lines, held = (held + chunk).split(b"\n")
        for line in lines:
            if not skips and line.strip():
                yield place, line
            skips = False
            place += len(line) + 1
            if 0 <= part.end <= place:
                return
    if not skips and held.strip():
        yield place, held


def _range(part: SourcePart) -> Iterator[bytes]:
    """Yield the bytes from just before a part on, up to the end of the file."""
    store, inside = fsspec.core.url_to_fs(part.path)
    place = max(0, part.begin - 1)
    while place < part.size:
        stop = part.end if place < part.end else place + _CHUNK
        stop = min(stop, place + _CHUNK, part.size)
        yield asking(part.path, partial(store.cat_file, inside, start=place, end=stop))
        place = stop


def _whole(path: str) -> Iterator[bytes]:
    with _opened(path) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """Say of content that can't be unpacked or understood which file it is of.

    Raises:
        DataError: It can't.
    """
    try:
        yield
    except _DAMAGED as error:
        raise DataError(f"{path} is damaged: {error}") from error
    except OSError as error:
        if error.errno is not None:  # of a disk or a store; without, of a format's own reader
            raise
        raise DataError(f"{path} is damaged: {error}") from error


@contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    """Hand out what a file holds, unpacked; what a store gives wrongly is asked for again."""
    packing = infer_compression(path)
    with open_stream(path) as stream:
        if PurePosixPath(path).suffix == ".zst":  # which Arrow can, and fsspec by an extra alone
            yield pa.CompressedInputStream(stream, "zstd")
        else:
            yield compr[packing](stream, mode="rb") if packing else stream


def _tables(part: SourcePart, column: str) -> Iterator[Mapping[str, Any]]:
    with _opened(part.path) as stream:
        for batch in _batches(part, stream, column):
            if column not in batch.schema.names:
                raise DataError(f"{part.path} has no column {column!r}: {batch.schema.names}")
            for begin in range(0, batch.num_rows, _BATCH):
                yield from batch.select([column]).slice(begin, _BATCH).to_pylist()


def _batches(part: SourcePart, stream: IO[bytes], column: str) -> Iterator[Any]:
    if part.kind == PARQUET:
        file = parquet.ParquetFile(stream)
        if column not in file.schema_arrow.names:
            raise DataError(f"{part.path} has no column {column!r}: {file.schema_arrow.names}")
        groups = range(part.begin, part.end)
        yield from file.iter_batches(_BATCH, row_groups=groups, columns=[column])
        return
    try:
        yield from pa.ipc.open_stream(stream)
    except pa.ArrowInvalid:
        stream.seek(0)
        file = pa.ipc.open_file(stream)
        yield from (file.get_batch(number) for number in range(file.num_record_batches))
