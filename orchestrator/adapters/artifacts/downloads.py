"""Brings what a remote store holds into the cache of this node: an artifact, or some of its files.

Each file is hashed when it comes. All processes of the node share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.adapters.artifacts import manifests
from orchestrator.adapters.artifacts.checking import proven, vanishing
from orchestrator.adapters.artifacts.node_cache import FULL, NodeCache
from orchestrator.adapters.artifacts.retrying import RetryingPlace, words
from orchestrator.core.artifact import MANIFEST_NAME, Manifest
from orchestrator.core.errors import StorageError


@dataclass(frozen=True, slots=True)
class Download:
    """What the artifact `name` with this manifest is, at `place`, brought into `cache`."""

    cache: NodeCache
    place: RetryingPlace
    name: str
    manifest: Manifest

    def whole(self) -> Path:
        """Return the folder with all files."""
        with self._named():
            return self.cache.folder(self.manifest, self._fill)

    def files(self, wanted: Callable[[str], bool]) -> Path:
        """Return the folder in which the `wanted` files are; others may be missing."""
        return self._have(wanted)[0]

    def proven_files(self, wanted: Callable[[str], bool]) -> Path:
        """Return that folder; those that were there before are hashed again."""
        folder, fetched = self._have(wanted)
        if not proven(folder, self.manifest, lambda path: wanted(path) and path not in fetched):
            self.cache.distrust(self.manifest)
            return self.files(wanted)
        return folder

    def _have(self, wanted: Callable[[str], bool]) -> tuple[Path, frozenset[str]]:
        with self._named():
            paths = [MANIFEST_NAME, *filter(wanted, self.manifest.files)]
            return self.cache.files(self.manifest, paths, self._fetch)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Say which artifact has no room, or was taken away meanwhile."""
        try:
            with vanishing(self.name):
                yield
        except OSError as error:
            if error.errno not in FULL:
                raise
            size = f"{self.manifest.size / 1e9:.3g} GB of artifact {self.name!r}"
            hint = "free some there, or name another folder: storage.cache"
            where = f"in the cache {str(self.cache.root)!r}"
            raise StorageError(f"no space for {size} {where}: {words(error)}; {hint}") from error

    def _fill(self, folder: Path) -> None:
        manifests.compare_names(self.manifest, self.place.files(self.name), self.name)
        folder.mkdir()  # also of no files
        for path in (*self.manifest.files, MANIFEST_NAME):
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(path, target)

    def _fetch(self, path: str, target: Path) -> None:
        if path == MANIFEST_NAME:
            target.write_bytes(manifests.write(self.manifest))
            return
        self.place.fetch(self.name, path, target)
        with target.open("rb") as stream:
            entry = manifests.hash_stream(stream)
        manifests.compare_file(self.manifest.files[path], entry, path, self.name)
