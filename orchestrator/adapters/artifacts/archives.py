"""Code as an artifact: one archive of all files, and a list of them with their digests.

Equal files have equal archives: they are written in order, without times and owners. A machine
unpacks one once, into its cache, and checks each file against the list.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import IO, Protocol

from orchestrator.adapters.artifacts import manifests
from orchestrator.core.artifact import ArtifactRef, FileEntry, Manifest
from orchestrator.core.errors import ArtifactError, DamagedError

ARCHIVE, LIST = "files.tar", "files.json"
_RUNS = 0o100  # of the mode of a file, whether it is run is kept alone


class _Readable(Protocol):
    def read(self, ref: ArtifactRef, path: str) -> bytes: ...


def write(folder: Path, files: Iterable[tuple[str, Path]]) -> None:
    """Write into `folder` what an artifact of `files`, by their names in it, is made of.

    Raises:
        ArtifactError: A file can't be read, or has a name that no file of an artifact can have.
    """
    entries: dict[str, FileEntry] = {}
    with tarfile.open(folder / ARCHIVE, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, path in files:
            manifests.check_name(name, "file")
            content = _content(path)
            entries[name] = manifests.hash_stream(BytesIO(content))
            about = tarfile.TarInfo(name)
            about.size, about.mode = len(content), _mode(path)
            archive.addfile(about, BytesIO(content))
    (folder / LIST).write_bytes(manifests.write(Manifest(entries)))


def _mode(path: Path) -> int:
    return 0o755 if os.access(path, os.X_OK) else 0o644


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"{str(path)!r} can't be read: {error.strerror}"
        raise ArtifactError(f"{message}; mend it, or name it in .gitignore") from error


def listed(store: _Readable, ref: ArtifactRef) -> Manifest:
    """Return the files of an archive."""
    return manifests.read(store.read(ref, LIST), ref.uri)


def unpack(store: _Readable, ref: ArtifactRef, files: Manifest, folder: Path) -> None:
    """Write `files` of an archive into `folder`, which is made.

    Raises:
        DamagedError: The archive has not what the list says.
    """
    folder.mkdir()
    with tarfile.open(fileobj=BytesIO(store.read(ref, ARCHIVE))) as archive:
        for name, entry in files.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            about, stream = _member(archive, name, ref)
            target.write_bytes(stream.read())
            target.chmod(0o755 if about.mode & _RUNS else 0o644)
            with target.open("rb") as written:
                manifests.compare_file(entry, manifests.hash_stream(written), name, ref.uri)


def _member(
    archive: tarfile.TarFile, name: str, ref: ArtifactRef
) -> tuple[tarfile.TarInfo, IO[bytes]]:
    try:
        about = archive.getmember(name)
        stream = archive.extractfile(about)
    except KeyError:
        stream = None
    if stream is None:
        raise DamagedError(f"artifact {ref.uri!r} lacks file {name!r}; launch again")
    return about, stream
