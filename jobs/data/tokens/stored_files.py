"""Files that are read in parts, wherever they lie: on a disk, which is mapped, or in a store.

A store is asked again for a minute where it fails; then the attempt ends by its storage. One that
only takes long is waited for (`prefetch`).
"""

from __future__ import annotations

import errno
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from time import monotonic
from typing import IO, Any, TypeAlias, TypeVar

import fsspec
import numpy as np
import numpy.typing as npt

from orchestrator.job import DataError

T = TypeVar("T")
Bytes = npt.NDArray[np.uint8]

ASKED_FOR = 60.0  # seconds
_BLOCK = 1 << 20  # bytes that a stream asks a store for at once, at least
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
# What asking again does not help.
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotImplementedError, ValueError)


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file on a disk."""

    path: str
    size: int
    content: Bytes


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a store."""

    path: str
    size: int
    store: Any  # a file system of fsspec


StoredFile: TypeAlias = MappedFile | RemoteFile


def is_remote(path: str) -> bool:
    """Whether a path is that of a store."""
    return "://" in path and not path.startswith("file://")


def open_file(path: str) -> StoredFile:
    """Open a file whose parts are to be read.

    Raises:
        DataError: It is not there.
    """
    if not is_remote(path):
        content = mapped(path)
        return MappedFile(path, content.size, content)
    store, inside = fsspec.core.url_to_fs(path)
    return RemoteFile(path, asking(path, lambda: int(store.size(inside))), store)


def mapped(path: str) -> Bytes:
    """Return all bytes of a file; one on a disk is mapped, one of a store is read.

    Raises:
        DataError: It is not there.
    """
    if is_remote(path):
        store, inside = fsspec.core.url_to_fs(path)
        return np.frombuffer(asking(path, lambda: store.cat_file(inside)), dtype=np.uint8)
    file = Path(path.removeprefix("file://"))
    if not file.is_file():
        raise DataError(f"{path} is missing")
    if not file.stat().st_size:  # nothing can't be mapped
        return np.zeros(0, dtype=np.uint8)
    return np.asarray(np.memmap(file, dtype=np.uint8, mode="r"))


def open_stream(path: str) -> IO[bytes]:
    """Open a file to be read from its beginning, or in any other order.

    Each read of a store is asked again where it fails, or gives fewer bytes than there are.

    Raises:
        DataError: It is not there.
    """
    if is_remote(path):
        return io.BufferedReader(_StoreStream(path), _BLOCK)
    try:
        return Path(path.removeprefix("file://")).open("rb")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error


class _StoreStream(io.RawIOBase):
    """The bytes of a file of a store, as a stream."""

    def __init__(self, path: str) -> None:
        """Begin at the first byte."""
        super().__init__()
        self._path, self._at = path, 0
        self._store, self._inside = fsspec.core.url_to_fs(path)
        self._size: int = asking(path, lambda: int(self._store.size(self._inside)))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        begins = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}
        self._at = begins[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, room: Any) -> int:  # noqa: ANN401 - any buffer
        count = max(0, min(len(room), self._size - self._at))
        if count:
            room[:count] = asking(self._path, partial(self._fetch, self._at, self._at + count))
            self._at += count
        return count

    def _fetch(self, begin: int, end: int) -> bytes:
        content: bytes = self._store.cat_file(self._inside, start=begin, end=end)
        if len(content) != end - begin:
            raise EOFError(f"of {end - begin:,} bytes from {begin:,} on {len(content):,} came")
        return content


def read_spans(spans: Sequence[tuple[StoredFile, int, int]]) -> list[Bytes]:
    """Return ranges of bytes of files; those of one store are asked for at once.

    Raises:
        DataError: One is shorter than its range.
        OSError: A store failed for a minute (`EIO`).
    """
    parts: dict[int, Bytes] = {}
    away: dict[int, list[tuple[int, RemoteFile]]] = {}  # by store
    for number, (file, begin, end) in enumerate(spans):
        if isinstance(file, MappedFile):
            parts[number] = file.content[begin:end]
        else:
            away.setdefault(id(file.store), []).append((number, file))
    for files in away.values():
        ranges = [(file, *spans[number][1:]) for number, file in files]
        for (number, _), answer in zip(files, _ask_for(ranges), strict=True):
            parts[number] = np.frombuffer(answer, dtype=np.uint8)
    for number, (file, begin, end) in enumerate(spans):
        if parts[number].size != end - begin:
            raise DataError(f"{file.path} is cut short: it ends before byte {end:,}")
    return [parts[number] for number in range(len(spans))]


def _ask_for(ranges: Sequence[tuple[RemoteFile, int, int]]) -> list[bytes]:
    """Return ranges of bytes of files of one store."""
    store = ranges[0][0].store
    paths = [store._strip_protocol(file.path) for file, _, _ in ranges]  # noqa: SLF001 - no public name
    begins, ends = [begin for _, begin, _ in ranges], [end for _, _, end in ranges]

    def ask() -> list[bytes]:
        answers: list[bytes] = store.cat_ranges(paths, begins, ends, on_error="raise")
        return answers

    return asking(ranges[0][0].path, ask)


def asking(path: str, ask: Callable[[], T], seconds: float | None = None) -> T:
    """Return what `ask` answers; where it fails, ask again for so long (a minute).

    Raises:
        DataError: The file is not there.
        OSError: It failed for so long (`EIO`), or may not be read.
    """
    until = monotonic() + (ASKED_FOR if seconds is None else seconds)
    pause = _FIRST_PAUSE
    while True:
        try:
            return _asked_once(path, ask)
        except OSError as error:
            if error.errno != errno.EIO or monotonic() + pause > until:
                raise
        Event().wait(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _asked_once(path: str, ask: Callable[[], T]) -> T:
    try:
        return ask()
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing") from error
    except _FINAL:
        raise
    except Exception as error:  # whatever a store's client raises
        what = f"{path} could not be read: {type(error).__name__}: {error}"
        raise OSError(errno.EIO, what) from error
