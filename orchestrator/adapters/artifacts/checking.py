"""Hashes what is stored, checks it when it is read, and tells what the system refused."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO

from orchestrator.adapters.artifacts import manifests
from orchestrator.adapters.artifacts.places import regular_files
from orchestrator.adapters.artifacts.retrying import RetryingPlace, hiccups, words
from orchestrator.core.artifact import NO_ROOM, FileEntry, Hashed, Manifest
from orchestrator.core.errors import ArtifactError, DamagedError, StorageError
from orchestrator.node.disks import mount_of

_THREADS = min(os.cpu_count() or 1, 16)


def manifest_of(place: RetryingPlace, name: str) -> Manifest:
    """Return the manifest of artifact `name`, its files unseen.

    Raises:
        DamagedError: There is none, or it is torn or altered.
    """
    text = place.manifest(name)
    if text is None:
        message = f"artifact {name!r} is not there, or was never finished; make it again"
        raise DamagedError(message)
    return manifests.read(text, name)


def check(place: RetryingPlace, name: str, mine: Callable[[str], bool] | None = None) -> Manifest:
    """Check that all files of artifact `name` are there; return the manifest.

    Those that are `mine` are hashed, or all.

    Raises:
        DamagedError: Names the first file that isn't as the manifest says.
    """
    manifest = manifest_of(place, name)
    with vanishing(name):
        manifests.compare_names(manifest, place.files(name), name)
        paths = [path for path in manifest.files if mine is None or mine(path)]
        with closing(_hashes(place, name, paths)) as hashed:
            for path, entry in hashed:
                manifests.compare_file(manifest.files[path], entry, path, name)
    return manifest


def _hashes(
    place: RetryingPlace, name: str, paths: Collection[str]
) -> Generator[tuple[str, FileEntry], None, None]:
    """Hash files side by side, as somebody waits for it; yield them in order."""

    def hashed(path: str) -> tuple[str, FileEntry]:
        return path, place.entry(name, path)

    with ThreadPoolExecutor(_THREADS) as pool:
        yield from pool.map(hashed, paths)


@contextmanager
def vanishing(name: str) -> Iterator[None]:
    """Turn a file that goes while artifact `name` is read into damage."""
    try:
        yield
    except FileNotFoundError as error:
        message = f"artifact {name!r} was taken away while it was read; make it again"
        raise DamagedError(message) from error


def hash_folder(folder: Path, hashed: Mapping[str, Hashed]) -> dict[str, FileEntry]:
    """Hash every file of `folder` but what is `hashed`, and flush it to disk while it is open."""
    files = {}
    for path in sorted(regular_files(folder)):
        manifests.check_name(path, "file")
        if manifests.reserved(path):
            message = f"file {path!r} has the name of the manifest; take another name"
            raise ArtifactError(message)
        with (folder / path).open("rb") as stream:
            files[path] = _unchanged(hashed.get(path), stream) or manifests.hash_stream(stream)
            os.fsync(stream.fileno())
    return files


def _unchanged(hashed: Hashed | None, stream: BinaryIO) -> FileEntry | None:
    """Return what its writer said of a file, if nobody has written to it since."""
    if hashed is None:
        return None
    status = os.fstat(stream.fileno())
    same = (hashed.entry.size, hashed.changed) == (status.st_size, status.st_mtime_ns)
    return hashed.entry if same else None


def proven(folder: Path, manifest: Manifest, mine: Callable[[str], bool]) -> bool:
    """Whether the files of a folder that are `mine` are as the manifest says."""
    for path in filter(mine, manifest.files):
        try:
            with (folder / path).open("rb") as stream:
                entry = manifests.hash_stream(stream)
        except FileNotFoundError:
            return False
        if entry != manifest.files[path]:
            return False
    return True


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Turn what the system refuses into one line that names artifact `name` and the way out."""
    try:
        with hiccups(name):
            yield
    except OSError as error:
        way_out = _WAYS_OUT.get(_errno(error), "check its storage")
        if isinstance(error, PermissionError) and not error.errno:  # of an object store
            way_out = "check the credentials of this machine, and what they may do"
        kind = ArtifactError if _errno(error) in _OF_NAMES else StorageError
        full = bool(error.filename) and _errno(error) in NO_ROOM
        where = f" at {mount_of(Path(os.fsdecode(error.filename)))!r}" if full else ""
        raise kind(f"artifact {name!r}: {words(error)}{where}; {way_out}") from error


def _errno(error: OSError) -> int:
    """Return the number of an error; the clients of remote stores often give its type alone."""
    return error.errno or (errno.EACCES if isinstance(error, PermissionError) else 0)


# What the names that are stored are at fault for. All else the storage is: a folder that is gone,
# or is none any more, may be a file system that is not mounted for a while.
_OF_NAMES = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.ELOOP, errno.EILSEQ})
_WAYS_OUT = {
    **NO_ROOM,
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check the permissions"),
}
