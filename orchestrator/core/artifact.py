"""References to artifacts, and the manifests that prove them.

An artifact is an immutable folder. Its manifest lists every file with size and SHA-256; the digest
of the artifact is the SHA-256 of the canonical manifest, so equal contents have equal digests
wherever they are stored.
"""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

MANIFEST_NAME = "manifest.json"
# By the number of an error that says that there is no room for a file: the way out.
NO_ROOM: Mapping[int, str] = MappingProxyType(
    {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "free some space within the quota, or raise it",
        errno.EFBIG: "raise the limit on the size of files (ulimit -f, or the file system's)",
    }
)


@dataclass(frozen=True, slots=True)
class CacheRoom:
    """What a node may keep of artifacts that lie elsewhere.

    Attributes:
        folder: Where, on its own disk; what is to be sent is filled there, too. The folder for
            temporary files where empty.
        gb: How much of what was downloaded stays there at most, in GB, while nobody uses it.
    """

    folder: str = ""
    gb: float = 200.0


ANY_ROOM = CacheRoom()


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of an artifact: its size in bytes and its SHA-256 as 64 hex digits."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Hashed:
    """A file whose hash its writer has made, as it was then: `changed` is its mtime, ns."""

    entry: FileEntry
    changed: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """The files of an artifact by relative POSIX path."""

    files: Mapping[str, FileEntry]
    meta: Mapping[str, str] = field(default_factory=dict)

    def canonical(self) -> bytes:
        """Return the bytes that the digest is taken over: sorted keys, no spaces, UTF-8."""
        files = {path: [entry.size, entry.sha256] for path, entry in self.files.items()}
        return json.dumps(files, sort_keys=True, separators=(",", ":")).encode()

    @property
    def digest(self) -> str:
        """The artifact's digest, 64 hex digits."""
        return hashlib.sha256(self.canonical()).hexdigest()

    @property
    def size(self) -> int:
        """Size of all files together, in bytes."""
        return sum(entry.size for entry in self.files.values())


@dataclass(frozen=True, slots=True)
class ArtifactRef:
    """Where an artifact lies and what it must contain."""

    uri: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class ShippedCode:
    """Code that travels to the nodes: an archive in the artifact store.

    Its folders are put on the import path, in the order of their names. `packages` are those of
    `jobs.packages` that are in it.
    """

    archive: ArtifactRef
    packages: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """What tells it from other code, 64 hex digits."""
        return self.archive.digest
