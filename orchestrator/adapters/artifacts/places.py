"""Where artifacts lie: a folder of this machine, or anything that fsspec can reach.

Both (`local_place.py`, `remote_place.py`) keep an artifact as a folder with its files and, written
last, its manifest: what has no manifest is not there. A local artifact appears by one rename. One
that several processes make together is gathered in parts: here under a temporary name, elsewhere
in its place.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from orchestrator.core.errors import ArtifactError


class StoragePlace(Protocol):
    """Where artifacts lie. Raises `OSError`, or whatever the client of its file system raises."""

    def put(self, folder: Path, name: str, manifest: bytes) -> None:
        """Store `folder` as `name`, manifest last; raises FileExistsError if it is there."""
        ...

    def room(self, name: str, part: str) -> Path | None:
        """Make an empty folder where a part of `name` is filled; `None` where parts are sent."""
        ...

    def add(self, folder: Path, name: str, part: str) -> None:
        """Flush or send `folder` as a part of `name`, which is not there before it is sealed."""
        ...

    def parts(self, name: str) -> frozenset[str]:
        """Return the paths of all files of all parts of `name`, which is not sealed."""
        ...

    def weight(self, name: str) -> int:
        """Return the bytes of all that lies under `name`, whole or in parts; it may grow."""
        ...

    def seal(self, name: str, manifest: bytes) -> None:
        """Make `name` appear, with all its parts; raises FileExistsError if another is there."""
        ...

    def remove(self, name: str) -> None:
        """Take `name` away: an artifact, whole or torn or in parts, or a mark."""
        ...

    def write(self, name: str, content: bytes) -> None:
        """Write a mark, all of it or nothing, over what it said before."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return what a mark says, or `None` where there is none."""
        ...

    def manifest(self, name: str) -> bytes | None:
        """Return the text of the manifest, or `None` where there is none."""
        ...

    def files(self, name: str) -> frozenset[str]:
        """Return the paths of all files of `name` but its manifest. Raises `ArtifactError`."""
        ...

    def open(self, name: str, path: str) -> BinaryIO:
        """Open a file of `name` to read."""
        ...

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy a file of `name` to `target`."""
        ...

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`, whole or not, each once."""
        ...


def discard(folder: Path) -> None:
    """Remove a folder, or whatever has taken its place, as far as that can be."""
    with suppress(OSError):
        if stat.S_ISDIR(folder.lstat().st_mode):
            shutil.rmtree(folder, ignore_errors=True)
        else:
            folder.unlink()


def regular_files(folder: Path, *, apart: Collection[str] = ()) -> Iterator[str]:
    """Yield the files of `folder` as relative POSIX paths; nothing is followed.

    Folders with a name of `apart` are not looked into.

    Raises:
        ArtifactError: There is a link, a socket, a pipe or a device.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
        folders[:] = [name for name in folders if name not in apart]
        for name in (*folders, *names):
            path = Path(parent, name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            relative = path.relative_to(folder).as_posix()
            if not stat.S_ISREG(mode):
                message = f"{relative!r} in {folder.name!r} is no regular file; write a copy"
                raise ArtifactError(message)
            yield relative


def _raise(error: OSError) -> None:
    raise error
