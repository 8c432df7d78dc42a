"""Where artifacts are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from orchestrator.core.artifact import ArtifactRef, FileEntry, Hashed, Manifest


class ArtifactStore(Protocol):
    """Immutable folders under a base URI, and marks beside them.

    Raises `ArtifactError`; of that, `StorageError` where the storage is away, full or forbidden,
    and `DamagedError` where what is stored is not as it was. To open one raises
    `StorageSetUpError` where this host lacks what the storage needs.
    """

    def scratch(self, name: str) -> Path:
        """Return a new empty local folder to fill; it disappears when committed or dropped."""
        ...

    def commit(
        self,
        folder: Path,
        name: str,
        meta: Mapping[str, str],
        hashed: Mapping[str, Hashed] | None = None,
    ) -> ArtifactRef:
        """Store `folder` as artifact `name`: hashes and fsyncs, manifest last, then renames.

        Files that are `hashed`, by their path, and not changed since, aren't read again.

        Raises:
            ArtifactError: It exists already with other contents, or there is no space.
        """
        ...

    def archive(self, name: str, files: Iterable[tuple[str, Path]]) -> ArtifactRef:
        """Return artifact `name`, an archive of `files` by their names in it.

        It is written where it isn't there whole; `unpack` returns its files.

        Raises:
            ArtifactError: A file can't be read.
        """
        ...

    def drop(self, folder: Path) -> None:
        """Remove a scratch folder, or one of a part, that will not be committed."""
        ...

    def part(self, name: str, part: str) -> Path:
        """Return a new empty local folder to fill with one `part` of artifact `name`."""
        ...

    def add(self, folder: Path, name: str, part: str) -> Mapping[str, FileEntry]:
        """Hash and flush what fills a part, and bring it where the others are gathered.

        Returns the files by their path in the artifact. The folder isn't the caller's any more.
        """
        ...

    def seal(
        self, name: str, files: Mapping[str, FileEntry], meta: Mapping[str, str]
    ) -> ArtifactRef:
        """Make artifact `name` appear, of all its parts: manifest last, then rename.

        Raises:
            DamagedError: The parts have fewer or more files than `files`.
            ArtifactError: Another was faster, with other contents.
        """
        ...

    def weight(self, name: str) -> int:
        """Return the bytes of all that lies under this name, whole or in parts: it may grow."""
        ...

    def remove(self, name: str) -> None:
        """Take away what has this name, whole or torn, an artifact or a mark."""
        ...

    def mark(self, name: str, text: str) -> None:
        """Keep a short text under `name`, all of it or nothing, over what it said before."""
        ...

    def marked(self, name: str) -> str | None:
        """Return the text kept under `name`; `None` where there is none."""
        ...

    def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local folder with the artifact, every file verified against its hash.

        One that is damaged is marked as that: it does not stand any more.
        """
        ...

    def release(self) -> None:
        """Let go of what an attempt has fetched, and remove what it filled: it is over.

        Safe to call twice.
        """
        ...

    def read(self, ref: ArtifactRef, path: str) -> bytes:
        """Return a small file of an artifact, verified against its hash; no other is fetched."""
        ...

    def unpack(self, ref: ArtifactRef) -> Path:
        """Return a local folder with the files of an archive, each verified against its hash.

        The processes of a machine share it.
        """
        ...

    def stands(self, ref: ArtifactRef) -> bool:
        """Return whether `ref` is there, and nobody who fetched it has found it damaged.

        Its manifest is read, and no file: whoever fetches it verifies those. One that is in
        another store does not stand.
        """
        ...

    def damage(self, ref: ArtifactRef) -> str | None:
        """Return how it was found damaged by who fetched it; `None` where nobody has.

        Raises:
            ArtifactError: It is in another store.
        """
        ...

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of artifact `name`; its files are not looked at.

        Raises:
            DamagedError: There is none, or it is torn or altered.
        """
        ...

    def load(
        self, name: str, *, mine: Callable[[str], bool] | None = None
    ) -> tuple[Path, Manifest]:
        """Return a local folder with artifact `name`, every file verified, and its manifest.

        Only the files that are `mine` are hashed: somebody else does that with the others. Where
        it has to be downloaded, they alone are, once for all processes of this machine; `bring`
        has the others.

        Raises:
            DamagedError: It is torn, altered or not there.
        """
        ...

    def bring(self, name: str, manifest: Manifest, wanted: Callable[[str], bool]) -> Path:
        """Return the local folder of an artifact that was loaded, in which `wanted` files are.

        Those that have to be downloaded are verified.

        Raises:
            DamagedError: One is torn, altered or not there.
        """
        ...

    def names(self, prefix: str) -> Sequence[str]:
        """Return the names of what lies right under `prefix`, whole or not."""
        ...
