"""Artifacts anywhere that fsspec can reach."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.adapters.artifacts.places import regular_files
from orchestrator.core.artifact import MANIFEST_NAME


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
            self._send(folder, target)
            self.seal(name, manifest)
        except BaseException:
            with suppress(Exception):  # what was raised first is what is told
                self.remove(name)
            raise
        shutil.rmtree(folder, ignore_errors=True)

    def room(self, name: str, part: str) -> Path | None:  # noqa: ARG002 - there is none
        """Return `None`: parts are sent."""
        return None

    def add(self, folder: Path, name: str, part: str) -> None:
        """Upload the files of a part to their place."""
        self._send(folder, self._path(name, part))
        shutil.rmtree(folder, ignore_errors=True)

    def parts(self, name: str) -> frozenset[str]:
        """Return the paths of all files of all parts of `name`."""
        return self.files(name)

    def weight(self, name: str) -> int:
        """Return the bytes of all that lies under `name`."""
        self._fs.invalidate_cache()
        files = self._fs.find(self._path(name), detail=True)
        return sum(int(file.get("size") or 0) for file in files.values())

    def seal(self, name: str, manifest: bytes) -> None:
        """Upload the manifest."""
        self.write(f"{name}/{MANIFEST_NAME}", manifest)

    def _send(self, folder: Path, target: str) -> None:
        for path in regular_files(folder):
            remote = f"{target}/{path}"
            self._fs.makedirs(remote.rpartition("/")[0], exist_ok=True)
            self._fs.put_file(str(folder / path), remote)

    def remove(self, name: str) -> None:
        """Take the manifest away first: what is half removed is no artifact."""
        for path, recursive in (
            (self._path(name, MANIFEST_NAME), False),
            (self._path(name), True),
        ):
            with suppress(FileNotFoundError):
                self._fs.rm(path, recursive=recursive)

    def write(self, name: str, content: bytes) -> None:
        """Upload a mark: object stores show all of an object or nothing."""
        path = self._path(name)
        self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
        self._fs.pipe_file(path, content)

    def read(self, name: str) -> bytes | None:
        """Return what a mark says, or `None` where there is none."""
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def manifest(self, name: str) -> bytes | None:
        """Return the text of the manifest, or `None` where there is none."""
        return self.read(f"{name}/{MANIFEST_NAME}")

    def files(self, name: str) -> frozenset[str]:
        """Return the paths of all files of `name` but its manifest."""
        start = len(self._path(name)) + 1
        self._fs.invalidate_cache()
        return frozenset(p[start:] for p in self._fs.find(self._path(name))) - {MANIFEST_NAME}

    def open(self, name: str, path: str) -> BinaryIO:
        """Open a file of `name` to read."""
        stream: BinaryIO = self._fs.open(self._path(name, path), "rb")
        return stream

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`, whole or not, each once."""
        self._fs.invalidate_cache()
        try:
            paths = self._fs.ls(self._path(prefix), detail=False)
        except FileNotFoundError:
            return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))
