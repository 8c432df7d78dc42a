"""Artifacts in a folder of this machine, or of a file system that it shares with others.

A client of NFS that has looked for a name in vain takes it for absent for up to a minute
(`acdirmax`), whoever makes it meanwhile. To open a folder asks the server. So what others may
write is looked for in listings, and by its name only once it is listed.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.artifacts.places import regular_files
from orchestrator.core.artifact import MANIFEST_NAME
from orchestrator.core.errors import ArtifactError

PARTIAL = ".partial"
_TRIES = 10  # of a mark whose folder goes while it is written
_TRASH = ".trash-"


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
        self._flush_above(target)

    def room(self, name: str, part: str) -> Path | None:
        """Make the folder under the temporary name of the artifact."""
        folder = self._partial(name) / part
        folder.mkdir(parents=True)
        return folder

    def add(self, folder: Path, name: str, part: str) -> None:  # noqa: ARG002 - it lies there
        """Flush the folders of a part; that its files were flushed is the caller's care."""
        for inner, _, _ in os.walk(folder, topdown=False):
            _flush(Path(inner))

    def parts(self, name: str) -> frozenset[str]:
        """Return the paths of all files of all parts of `name`."""
        return frozenset(regular_files(self._partial(name)))

    def weight(self, name: str) -> int:
        """Return the bytes of all that lies under `name`; what goes meanwhile counts nothing."""
        total = 0
        for root in (self.root / name, self._partial(name)):
            for parent, _, names in os.walk(root):
                for file in names:
                    with suppress(FileNotFoundError):
                        total += Path(parent, file).lstat().st_size
        return total

    def seal(self, name: str, manifest: bytes) -> None:
        """Write the manifest, and rename all to its place."""
        self.put(self._partial(name), name, manifest)

    def _partial(self, name: str) -> Path:
        return self.root / f"{name}{PARTIAL}"

    def _flush_above(self, path: Path) -> None:
        for parent in (path.parent, *path.parent.relative_to(self.root).parents):
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
        for path in (self.root / name, self._partial(name)):
            trash = self.root / f"{_TRASH}{uuid.uuid4().hex}"
            with suppress(FileNotFoundError):
                path.rename(trash)
        for trash in self.root.glob(f"{_TRASH}*"):  # what a crash left there, too
            if trash.is_dir():
                shutil.rmtree(trash, ignore_errors=True)
            else:
                trash.unlink(missing_ok=True)

    def write(self, name: str, content: bytes) -> None:
        """Write it beside its place, flush it, rename it; its folder may go meanwhile."""
        target = self.root / name
        for left in reversed(range(_TRIES)):
            try:
                self._write(target, content)
                break
            except (FileNotFoundError, FileExistsError):  # it went, or went as it was made
                if not left:
                    raise
        with suppress(FileNotFoundError):  # what was written is removed already
            self._flush_above(target)

    def _write(self, target: Path, content: bytes) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.parent / f".mark-{uuid.uuid4().hex}"
        try:
            with beside.open("xb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            beside.rename(target)
        finally:
            beside.unlink(missing_ok=True)

    def read(self, name: str) -> bytes | None:
        """Return what a mark says, or `None` where there is none."""
        path = self.root / name
        if path.name not in self._listed(path.parent):
            return None
        self._refuse_links(name)
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def manifest(self, name: str) -> bytes | None:
        """Return the text of the manifest, or `None` where there is none."""
        return self.read(f"{name}/{MANIFEST_NAME}")

    def files(self, name: str) -> frozenset[str]:
        """Return the paths of all files of `name` but its manifest."""
        return frozenset(regular_files(self.root / name)) - {MANIFEST_NAME}

    def open(self, name: str, path: str) -> BinaryIO:
        """Open a file of `name` to read."""
        return (self.root / name / path).open("rb")

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy a file of `name` to `target`."""
        shutil.copyfile(self.root / name / path, target)

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`, whole or not, each once."""
        names = {name.removesuffix(PARTIAL) for name in self._listed(self.root / prefix)}
        return sorted(name for name in names if not name.startswith("."))

    def _listed(self, folder: Path) -> Sequence[str]:
        """Return the names in `folder`; one that seems absent is looked for in the one above."""
        names = _names_in(folder)
        if names is None and folder != self.root and folder.name in self._listed(folder.parent):
            names = _names_in(folder)
        return names or ()

    def _refuse_links(self, name: str) -> None:
        path = self.root
        for part in name.split("/"):
            path /= part
            if path.is_symlink():
                name = name.removesuffix(f"/{MANIFEST_NAME}")
                message = f"artifact {name!r} is reached by a link, {part!r}; store a copy"
                raise ArtifactError(message)


def _names_in(folder: Path) -> Sequence[str] | None:
    """Return the names in `folder`; `None` where it seems absent."""
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        return ()


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
