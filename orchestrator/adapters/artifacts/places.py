"""Where artifacts lie: a folder of this machine, or anything that fsspec can reach.

Both keep an artifact as a folder with its files and, written last, its manifest: what has no
manifest is not there. A local artifact appears by one rename.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from orchestrator.core.artifact import MANIFEST_NAME
from orchestrator.core.errors import ArtifactError


class Place(Protocol):
    """Where artifacts lie. Raises `OSError` for what the system refuses."""

    def put(self, folder: Path, name: str, manifest: bytes) -> None:
        """Store `folder` as `name`, manifest last; raises FileExistsError if it is there."""
        ...

    def remove(self, name: str) -> None:
        """Take `name` away, whole or torn."""
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

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""
        ...

    def read(self, name: str) -> bytes | None:
        """Return a small file, or `None` where there is none."""
        ...


def regular_files(folder: Path) -> Iterator[str]:
    """Yield the files of `folder` as relative POSIX paths; nothing is followed.

    Raises:
        ArtifactError: There is a link, a socket, a pipe or a device.
    """
    for parent, folders, names in os.walk(folder, onerror=_raise):
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


class LocalPlace:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        """Remember the folder; it is made when something is put there."""
        self.root = root

    def put(self, folder: Path, name: str, manifest: bytes) -> None:
        """Flush all of `folder`, write its manifest, and rename it to its place."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        seal = folder / MANIFEST_NAME
        try:
            with seal.open("xb") as stream:
                stream.write(manifest)
                stream.flush()
                os.fsync(stream.fileno())
            for inner, _, _ in os.walk(folder, topdown=False):
                _flush(Path(inner))
            self._move(folder, target)
        except OSError:
            seal.unlink(missing_ok=True)
            raise
        for parent in (target.parent, *target.parent.relative_to(self.root).parents):
            _flush(self.root / parent)

    def _move(self, folder: Path, target: Path) -> None:
        try:
            folder.rename(target)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise FileExistsError(errno.EEXIST, "exists", str(target)) from error
            if error.errno != errno.EXDEV:
                raise
            self._carry(folder, target)

    def _carry(self, folder: Path, target: Path) -> None:
        """Bring `folder` over from another file system, then rename it to its place."""
        incoming = self.root / f".incoming-{uuid.uuid4().hex}"
        try:
            shutil.copytree(folder, incoming)
            for parent, _, names in os.walk(incoming, topdown=False):
                for name in names:
                    _flush(Path(parent, name))
                _flush(Path(parent))
            self._move(incoming, target)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
        shutil.rmtree(folder, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Rename it away first: what is half removed must not look like an artifact."""
        trash = self.root / f".trash-{uuid.uuid4().hex}"
        with suppress(FileNotFoundError):
            (self.root / name).rename(trash)
            shutil.rmtree(trash)

    def manifest(self, name: str) -> bytes | None:
        """Return the text of the manifest, or `None` where there is none."""
        self._refuse_links(name)
        try:
            return (self.root / name / MANIFEST_NAME).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def files(self, name: str) -> frozenset[str]:
        """Return the paths of all files of `name` but its manifest."""
        return frozenset(regular_files(self.root / name)) - {MANIFEST_NAME}

    def open(self, name: str, path: str) -> BinaryIO:
        """Open a file of `name` to read."""
        return (self.root / name / path).open("rb")

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`."""
        try:
            return [path.name for path in (self.root / prefix).iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return ()

    def _refuse_links(self, name: str) -> None:
        path = self.root
        for part in (*name.split("/"), MANIFEST_NAME):
            path /= part
            if path.is_symlink():
                message = f"artifact {name!r} is reached by a link, {part!r}; store a copy"
                raise ArtifactError(message)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, whole or not at all."""
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        new = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        new.write_bytes(data)
        new.replace(target)

    def read(self, name: str) -> bytes | None:
        """Return a small file, or `None` where there is none."""
        try:
            return (self.root / name).read_bytes()
        except FileNotFoundError:
            return None


class RemotePlace:
    """Anything that fsspec can reach. Nothing is renamed: the manifest, sent last, decides."""

    def __init__(self, fs: Any, root: str) -> None:  # noqa: ANN401 - fsspec has no types
        """Remember the file system and the path of the store in it."""
        self._fs = fs
        self._root = root.rstrip("/")

    def put(self, folder: Path, name: str, manifest: bytes) -> None:
        """Upload the files, then the manifest; what fails leaves nothing behind."""
        target = self._path(name)
        if self._fs.exists(self._path(name, MANIFEST_NAME)):
            raise FileExistsError(errno.EEXIST, "exists", target)
        try:
            for path in regular_files(folder):
                remote = self._path(name, path)
                self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(folder / path), remote)
            self._fs.makedirs(target, exist_ok=True)
            self._fs.pipe_file(self._path(name, MANIFEST_NAME), manifest)
        except OSError:
            self.remove(name)
            raise
        shutil.rmtree(folder, ignore_errors=True)

    def remove(self, name: str) -> None:
        """Take the manifest away first: what is half removed is no artifact."""
        for path, recursive in (
            (self._path(name, MANIFEST_NAME), False),
            (self._path(name), True),
        ):
            with suppress(FileNotFoundError):
                self._fs.rm(path, recursive=recursive)

    def manifest(self, name: str) -> bytes | None:
        """Return the text of the manifest, or `None` where there is none."""
        try:
            return bytes(self._fs.cat_file(self._path(name, MANIFEST_NAME)))
        except FileNotFoundError:
            return None

    def files(self, name: str) -> frozenset[str]:
        """Return the paths of all files of `name` but its manifest."""
        start = len(self._path(name)) + 1
        return frozenset(p[start:] for p in self._fs.find(self._path(name))) - {MANIFEST_NAME}

    def open(self, name: str, path: str) -> BinaryIO:
        """Open a file of `name` to read."""
        stream: BinaryIO = self._fs.open(self._path(name, path), "rb")
        return stream

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.ls(self._path(prefix), detail=False)
        except FileNotFoundError:
            return ()
        return [path.rstrip("/").rpartition("/")[2] for path in found]

    def write(self, name: str, data: bytes) -> None:
        """Write a small file; what fsspec reaches shows it when it is whole."""
        path = self._path(name)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, data)

    def read(self, name: str) -> bytes | None:
        """Return a small file, or `None` where there is none."""
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    raise error
