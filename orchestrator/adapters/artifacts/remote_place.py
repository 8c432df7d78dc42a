"""Artifacts anywhere that fsspec can reach.

A manifest is written only where there is none, so that of several that seal the same artifact one
wins: by the store itself where it takes that condition (S3: `If-None-Match`). One that refuses or
ignores it is looked at before; two that seal within the same moment may both win there.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from orchestrator.adapters.artifacts.client_errors import (
    bucket_is_gone,
    exists_already,
    takes_no_conditions,
)
from orchestrator.adapters.artifacts.places import regular_files
from orchestrator.core.artifact import MANIFEST_NAME

_MOST_PARTS = 10_000  # of a file, by the rules of S3


@dataclass(frozen=True, slots=True)
class Traits:
    """How a file system of a kind is used.

    Attributes:
        buckets: Whether it has buckets and no folders: to make a folder would make the bucket.
        part: Bytes of the parts in which a large file is sent; 0 leaves that to the file system.
        options: What the file system is opened with.
    """

    buckets: bool = False
    part: int = 0
    options: Mapping[str, object] = field(default_factory=dict)


class RemotePlace:
    """Anything that fsspec can reach. Nothing is renamed: the manifest, sent last, decides."""

    def __init__(self, fs: Any, root: str, traits: Traits) -> None:  # noqa: ANN401 - fsspec has no types
        """Remember the file system and the path of the store in it."""
        self._fs = fs
        self._root = root.rstrip("/")
        self._traits = traits

    def put(self, folder: Path, name: str, manifest: bytes) -> None:
        """Upload the files, then the manifest; what fails leaves nothing behind."""
        target = self._path(name)
        if self._fs.exists(self._path(name, MANIFEST_NAME)):
            raise FileExistsError(errno.EEXIST, "exists", target)
        try:
            self._send(folder, target)
            self.seal(name, manifest)
        except FileExistsError:  # it is another's
            raise
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
        """Upload the manifest; raises FileExistsError where another one is there."""
        path = self._path(name, MANIFEST_NAME)
        self._make_folder_of(path)
        try:
            self._create(path, manifest)
        except OSError as error:
            if not exists_already(error):
                raise
            if self.manifest(name) != manifest:  # else the answer to an earlier try was lost
                raise FileExistsError(errno.EEXIST, "exists", path) from error

    def _create(self, path: str, content: bytes) -> None:
        """Write what is not there; some stores ignore the condition, so they are looked at."""
        if self._fs.exists(path):
            raise FileExistsError(errno.EEXIST, "exists", path)
        try:
            self._fs.pipe_file(path, content, mode="create")
        except (OSError, NotImplementedError) as error:
            if not takes_no_conditions(error):
                raise
            self._fs.pipe_file(path, content)

    def _send(self, folder: Path, target: str) -> None:
        for path in regular_files(folder):
            remote = f"{target}/{path}"
            self._make_folder_of(remote)
            self._fs.put_file(str(folder / path), remote, **self._in_parts(folder / path))

    def _in_parts(self, file: Path) -> dict[str, int]:
        """Return how large the parts are in which `file` is sent."""
        part = self._traits.part
        return {"chunksize": max(part, -(-file.stat().st_size // _MOST_PARTS))} if part else {}

    def _make_folder_of(self, path: str) -> None:
        if not self._traits.buckets:
            self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)

    def remove(self, name: str) -> None:
        """Take the manifest away first: what is half removed is no artifact."""
        for path, recursive in (
            (self._path(name, MANIFEST_NAME), False),
            (self._path(name), True),
        ):
            try:
                self._fs.rm(path, recursive=recursive)
            except FileNotFoundError as error:
                _raise_without_bucket(error)

    def write(self, name: str, content: bytes) -> None:
        """Upload a mark: object stores show all of an object or nothing."""
        path = self._path(name)
        self._make_folder_of(path)
        self._fs.pipe_file(path, content)

    def read(self, name: str) -> bytes | None:
        """Return what a mark says, or `None` where there is none."""
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError as error:
            _raise_without_bucket(error)
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

    def fetch(self, name: str, path: str, target: Path) -> None:
        """Copy a file of `name` to `target`; a large one in parts, several at a time."""
        self._fs.get_file(self._path(name, path), str(target))

    def children(self, prefix: str) -> Sequence[str]:
        """Return the names right under `prefix`, whole or not, each once."""
        self._fs.invalidate_cache()
        try:
            paths = self._fs.ls(self._path(prefix), detail=False)
        except FileNotFoundError as error:
            _raise_without_bucket(error)
            return []
        return sorted({path.rstrip("/").rpartition("/")[2] for path in paths})

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))


def _raise_without_bucket(error: FileNotFoundError) -> None:
    if bucket_is_gone(error):
        raise error
