"""Files that a gate names: of this host by a path, and of what fsspec opens by a URL.

A file is read once: of one that has grown since only what was added is.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

_CHUNK = 1 << 20
_TAIL = 4096  # bytes by which a file that has grown is known to be the same
_STAMPS = ("etag", "ETag", "mtime", "LastModified", "last_modified", "updated", "created")
OpenFiles: TypeAlias = "Callable[[str], tuple[AbstractFileSystem, str]]"


@dataclass(frozen=True, slots=True)
class Listed:
    """A file or folder as it is listed; another `stamp` says that it has changed."""

    size: int
    stamp: Hashable
    is_file: bool = True


@dataclass(frozen=True, slots=True)
class Counted:
    """The lines of a file up to `size` bytes, and the last of those bytes."""

    stamp: Hashable
    size: int = 0
    lines: int = 0
    tail: bytes = b""


class Files(Protocol):
    """Files of one kind of storage. Raises whatever that raises."""

    def matching(self) -> Mapping[str, Listed]:
        """Return what the pattern matches, by its name, in order."""
        ...

    def read(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes of a file from `start` up to `end`."""
        ...


class LocalFiles:
    """Files of this host that match a path or a glob."""

    def __init__(self, pattern: str) -> None:
        """Match `pattern`, which may be absolute."""
        self._pattern = pattern

    def matching(self) -> Mapping[str, Listed]:
        """Return what is there now."""
        paths = map(Path, sorted(glob.glob(self._pattern, recursive=True)))  # noqa: PTH207 - see above
        return {str(path): listed for path in paths if (listed := _listed(path)) is not None}

    def read(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yield a part of a file."""
        with Path(path).open("rb") as stream:
            stream.seek(start)
            while start < end and (chunk := stream.read(min(_CHUNK, end - start))):
                start += len(chunk)
                yield chunk


class RemoteFiles:
    """Files that match a URL, which may be a glob."""

    def __init__(self, url: str, open_files: OpenFiles) -> None:
        """Open the file system that `url` names."""
        self._fs, self._pattern = open_files(url)

    def matching(self) -> Mapping[str, Listed]:
        """Return what is there now, whatever was listed before."""
        self._fs.invalidate_cache()
        infos = self._fs.glob(self._pattern, detail=True)
        return {path: _listed_by(infos[path]) for path in sorted(infos)}

    def read(self, path: str, start: int, end: int) -> Iterator[bytes]:
        """Yield a part of a file."""
        while start < end:
            chunk = self._fs.cat_file(path, start=start, end=min(start + _CHUNK, end))
            if not chunk:
                return
            start += len(chunk)
            yield chunk


class LineCounter:
    """Counts the lines of files, again and again."""

    def __init__(self) -> None:
        """Have counted nothing."""
        self._counted: dict[str, Counted] = {}

    def count(self, files: Files) -> int:
        """Return how many lines all files have together; one that can't be read has none."""
        before, self._counted = self._counted, {}
        for path, listed in files.matching().items():
            try:
                counted = _count(files, path, listed, before.get(path)) if listed.is_file else None
            except OSError:
                continue
            if counted is not None:
                self._counted[path] = counted
        return sum(counted.lines for counted in self._counted.values())


def _count(files: Files, path: str, listed: Listed, before: Counted | None) -> Counted:
    if before is not None and before.stamp == listed.stamp:
        return before
    if before is None or not _has_grown(files, path, listed, before):
        before = Counted(listed.stamp)
    size, lines, tail = before.size, before.lines, before.tail
    for chunk in files.read(path, size, listed.size):
        size, lines = size + len(chunk), lines + chunk.count(b"\n")
        tail = (tail + chunk)[-_TAIL:]
    return Counted(listed.stamp, size, lines, tail)


def _has_grown(files: Files, path: str, listed: Listed, before: Counted) -> bool:
    if listed.size <= before.size:
        return False
    start = before.size - len(before.tail)
    return b"".join(files.read(path, start, before.size)) == before.tail


def _listed(path: Path) -> Listed | None:
    try:
        status = path.stat()
    except OSError:
        return None
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    return Listed(status.st_size, stamp, path.is_file())


def _listed_by(info: Mapping[str, object]) -> Listed:
    size = info.get("size")
    bytes_of = size if isinstance(size, int) else 0
    stamp = (bytes_of, *(str(info.get(key)) for key in _STAMPS))
    return Listed(bytes_of, stamp, info.get("type") == "file")
