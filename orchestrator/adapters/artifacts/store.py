"""The artifact store: immutable folders that prove themselves.

Every file is hashed when it is written or stored, and again each time it is fetched. What was torn
by a crash, altered or lost is found and named, and may be made again under the same name; what is
intact is never replaced by something else.
"""

from __future__ import annotations

import uuid
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path

from orchestrator.adapters.artifacts import archives, manifests
from orchestrator.adapters.artifacts.checking import (
    check,
    hash_folder,
    manifest_of,
    translated,
    vanishing,
)
from orchestrator.adapters.artifacts.downloads import Download
from orchestrator.adapters.artifacts.local_place import PARTIAL, LocalPlace
from orchestrator.adapters.artifacts.node_cache import (
    SCRATCH,
    Holds,
    NodeCache,
    cache_root,
    let_go,
    parent_of,
    verify_once,
)
from orchestrator.adapters.artifacts.places import StoragePlace, discard
from orchestrator.adapters.artifacts.protocols import open_place
from orchestrator.adapters.artifacts.retrying import RetryingPlace
from orchestrator.core import artifact_paths
from orchestrator.core.artifact import (
    ANY_ROOM,
    ArtifactRef,
    CacheRoom,
    FileEntry,
    Hashed,
    Manifest,
)
from orchestrator.core.errors import ArtifactError, DamagedError, StorageError
from orchestrator.core.settings import PATIENT
from orchestrator.node.scratch import ScratchFolder
from orchestrator.ports import Clock

_SMALL = 20_000_000  # bytes that are looked at before they are used by others


class FsspecArtifactStore:
    """The port `ArtifactStore` on a folder, or on any URI that fsspec knows.

    `scratch` is where folders are filled and downloads are kept. By default it lies inside a
    local store, so that a commit is a rename. It is a folder of this process (`scratch.py`). What
    a remote one has downloaded is shared by all processes of the machine (`node_cache.py`).
    """

    def __init__(  # noqa: PLR0913, PLR0917 - where it is, and how its process uses it
        self,
        uri: str,
        scratch: Path | None = None,
        clock: Clock | None = None,
        attempt: str = "",
        patience: float = PATIENT.storage,
        room: CacheRoom = ANY_ROOM,
        stands_before: Callable[[StoragePlace], StoragePlace] | None = None,
    ) -> None:
        """Open the store at `uri`; nothing is made before it is needed.

        With a `clock`, whatever the storage says that may pass is waited for, for `patience`
        seconds at most.
        Processes of one machine with the same `attempt` verify what lies in a folder together;
        what is fetched for it is held until `release`, and else until this process ends.
        Whatever `stands_before` the place where artifacts lie is asked in its stead.

        Raises:
            StorageSetUpError: fsspec doesn't know the URI, or lacks the package for it.
        """
        place, self._base = open_place(uri)
        self._local = place.root if isinstance(place, LocalPlace) else None
        asked = stands_before(place) if stands_before else place
        self._place = RetryingPlace(asked, clock, patience)
        self._scratch, self._attempt, self._room = scratch, attempt, room
        self._own: ScratchFolder | None = None
        self._own_ends: Callable[[], object] | None = None
        self._holds: Holds | None = {} if attempt else None

    # --- writing -------------------------------------------------------------------------------

    def scratch(self, name: str) -> Path:
        """Return a new empty local folder to fill; it disappears when committed or dropped."""
        with translated(name):
            plain = manifests.check_name(name, "scratch folder").replace("/", "-")
            folder = self._scratch_root() / f"{plain[-80:]}-{uuid.uuid4().hex}"
            folder.mkdir()
            return folder

    def drop(self, folder: Path) -> None:
        """Remove a scratch folder, or one of a part, that will not be committed."""
        discard(folder)
        if folder.parent.name.endswith(PARTIAL):
            with suppress(OSError):  # other parts are there still
                folder.parent.rmdir()

    def commit(
        self,
        folder: Path,
        name: str,
        meta: Mapping[str, str],
        hashed: Mapping[str, Hashed] | None = None,
    ) -> ArtifactRef:
        """Store `folder` as artifact `name`: hashes and fsyncs, manifest last, then renames.

        Files that are `hashed`, by their path, and not changed since, aren't read again: such a
        hash says what was meant, and each fetch compares it with what is there.

        Raises:
            ArtifactError: It exists already with other contents, or there is no space.
        """
        manifests.check_artifact_name(name)
        with translated(name):
            files = self._place.again(name, lambda: hash_folder(folder, hashed or {}))
            manifest = Manifest(files, dict(meta))
            if not self._is_there(name, manifest):
                self._put(folder, name, manifest)
        self.drop(folder)
        return self._ref(name, manifest)

    def _put(self, folder: Path, name: str, manifest: Manifest) -> None:
        try:
            self._place.put(folder, name, manifests.write(manifest))
        except FileExistsError:  # somebody was faster
            if not self._is_there(name, manifest):
                raise

    def _is_there(self, name: str, manifest: Manifest) -> bool:
        """Whether `name` holds the same already; what is there but damaged is taken away."""
        try:
            stored = check(self._place, name)
        except DamagedError:
            self._place.remove(name)
            return False
        if stored.digest != manifest.digest:
            message = f"artifact {name!r} exists with other contents; take another name"
            raise ArtifactError(message)
        return True

    def archive(self, name: str, files: Iterable[tuple[str, Path]]) -> ArtifactRef:
        """Return artifact `name`, an archive of `files`; it is written where it isn't there whole.

        Raises:
            ArtifactError: A file can't be read.
        """
        with suppress(DamagedError):
            manifest = self.manifest(name)
            if manifest.size < _SMALL:
                self.verify(f"{self._base}/{name}")
            return self._ref(name, manifest)
        folder = self.scratch(name)
        try:
            archives.write(folder, files)
            return self.commit(folder, name, {})
        finally:
            self.drop(folder)

    # --- artifacts that several processes make ----------------------------------------------

    def part(self, name: str, part: str) -> Path:
        """Return a new empty local folder to fill with one `part` of artifact `name`."""
        manifests.check_artifact_name(f"{name}/{part}")
        with translated(name):
            return self._place.room(name, part) or self.scratch(f"{name}/{part}")

    def add(self, folder: Path, name: str, part: str) -> Mapping[str, FileEntry]:
        """Hash and flush what fills a part, and bring it where the others are gathered.

        Returns the files by their path in the artifact. The folder isn't the caller's any more.
        """
        with translated(name):
            files = self._place.again(name, lambda: hash_folder(folder, {}))
            self._place.add(folder, name, part)
        return {f"{part}/{path}": entry for path, entry in files.items()}

    def seal(
        self, name: str, files: Mapping[str, FileEntry], meta: Mapping[str, str]
    ) -> ArtifactRef:
        """Make artifact `name` appear, of all its parts: manifest last, then rename.

        Raises:
            DamagedError: The parts have fewer or more files than `files`.
            ArtifactError: Another was faster, with other contents.
        """
        manifest = Manifest(dict(files), dict(meta))
        with translated(name):
            manifests.compare_names(manifest, self._place.parts(name), name)
            try:
                self._place.seal(name, manifests.write(manifest))
            except FileExistsError as error:
                message = f"artifact {name!r} exists with other contents; take another name"
                raise ArtifactError(message) from error
        return self._ref(name, manifest)

    def weight(self, name: str) -> int:
        """Return the bytes of all that lies under this name, whole or in parts."""
        manifests.check_artifact_name(name)
        with translated(name):
            return self._place.weight(name)

    def remove(self, name: str) -> None:
        """Take away what has this name, whole or torn, an artifact or a mark."""
        manifests.check_artifact_name(name)
        with translated(name):
            self._place.remove(name)

    # --- marks ---------------------------------------------------------------------------------

    def mark(self, name: str, text: str) -> None:
        """Keep a short text under `name`, all of it or nothing, over what it said before."""
        manifests.check_artifact_name(name)
        with translated(name):
            self._place.write(name, text.encode())

    def marked(self, name: str) -> str | None:
        """Return the text kept under `name`; `None` where there is none."""
        manifests.check_artifact_name(name)
        with translated(name):
            text = self._place.read(name)
        return None if text is None else text.decode(errors="replace")

    # --- reading -------------------------------------------------------------------------------

    def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local folder with the artifact, every file verified against its hash."""
        name = self._name(ref.uri)
        try:
            with translated(name):
                path, manifest = self._load(name)
        except DamagedError as error:
            with suppress(ArtifactError):
                self.mark(artifact_paths.damaged(name), str(error))
            raise
        if manifest.digest != ref.digest:
            has, says = manifest.digest[:12], ref.digest[:12]
            message = f"artifact {ref.uri!r} has digest {has!r}, not {says!r}; make it again"
            raise ArtifactError(message)
        return path

    def read(self, ref: ArtifactRef, path: str) -> bytes:
        """Return a small file of an artifact, verified against its hash; no other is fetched."""
        name = self._name(ref.uri)
        with translated(name):
            manifest = manifest_of(self._place, name)
            entry = manifest.files.get(path)
            if manifest.digest != ref.digest or entry is None:
                raise ArtifactError(f"artifact {ref.uri!r} has no {path!r}, or is another one")
            with self._place.open(name, path) as stream:
                content = stream.read()
        manifests.compare_file(entry, manifests.hash_stream(BytesIO(content)), path, name)
        return content

    def unpack(self, ref: ArtifactRef) -> Path:
        """Return a local folder with the files of an archive, each verified against its hash."""
        with translated(ref.uri):
            files = archives.listed(self, ref)
            return self._cache().folder(files, partial(archives.unpack, self, ref, files))

    def verify(self, uri: str) -> Manifest:
        """Check every file of the artifact at `uri` against its manifest; return that."""
        name = self._name(uri)
        with translated(name):
            return check(self._place, name)

    def stands(self, ref: ArtifactRef) -> bool:
        """Return whether `ref` is there, and nobody who fetched it has found it damaged."""
        try:
            same = self.manifest(self._name(ref.uri)).digest == ref.digest
            return same and self.damage(ref) is None
        except StorageError:
            raise
        except ArtifactError:
            return False

    def damage(self, ref: ArtifactRef) -> str | None:
        """Return how it was found damaged by who fetched it; `None` where nobody has."""
        return self.marked(artifact_paths.damaged(self._name(ref.uri)))

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of artifact `name`; its files are not looked at."""
        manifests.check_artifact_name(name)
        with translated(name):
            return manifest_of(self._place, name)

    def load(
        self, name: str, *, mine: Callable[[str], bool] | None = None
    ) -> tuple[Path, Manifest]:
        """Return a local folder with artifact `name`, every file verified, and its manifest.

        Only the files that are `mine` are hashed: somebody else does that with the others. Where
        it has to be downloaded, they alone are, once for all processes of this machine; `bring`
        has the others.
        """
        manifests.check_artifact_name(name)
        with translated(name):
            return self._load(name, mine)

    def bring(self, name: str, manifest: Manifest, wanted: Callable[[str], bool]) -> Path:
        """Return the local folder of an artifact that was loaded, in which `wanted` files are."""
        if self._local is not None:
            return self._local / name
        with translated(name):
            return self._download(name, manifest).files(wanted)

    def names(self, prefix: str) -> Sequence[str]:
        """Return the names of what lies right under `prefix`, whole or not."""
        manifests.check_artifact_name(prefix)
        with translated(prefix):
            return self._place.children(prefix)

    def _load(self, name: str, mine: Callable[[str], bool] | None = None) -> tuple[Path, Manifest]:
        """Return a verified local folder of `name`; the stored one itself if it is local."""
        if self._local is not None:
            path, together = self._local / name, mine is None and bool(self._attempt)
            manifest = check(self._place, name, (lambda _: False) if together else mine)
            if together:
                with vanishing(name):
                    root = cache_root(self._room.folder)
                    verify_once(root, path, self._attempt, lambda: check(self._place, name))
            return path, manifest
        manifest = manifest_of(self._place, name)
        download = self._download(name, manifest)
        return (download.whole() if mine is None else download.proven_files(mine)), manifest

    def _download(self, name: str, manifest: Manifest) -> Download:
        return Download(self._cache(), self._place, name, manifest)

    def _cache(self) -> NodeCache:
        inside = self._scratch
        root = cache_root(self._room.folder) if inside is None else inside / "cache"
        return NodeCache(root, int(self._room.gb * 1e9), self._holds)

    def release(self) -> None:
        """Let go of what an attempt has fetched, and remove what it filled: it is over.

        Safe to call twice.
        """
        let_go(self._holds or {})
        if self._own_ends is not None:
            self._own_ends()

    # --- names ---------------------------------------------------------------------------------

    def _ref(self, name: str, manifest: Manifest) -> ArtifactRef:
        return ArtifactRef(f"{self._base}/{name}", manifest.digest, manifest.size)

    def _name(self, uri: str) -> str:
        if not uri.startswith(f"{self._base}/"):
            message = f"artifact {uri!r} is not in the store {self._base!r}; copy it there"
            raise ArtifactError(message)
        return manifests.check_artifact_name(uri.removeprefix(f"{self._base}/"))

    def _scratch_root(self) -> Path:
        if self._scratch is not None:
            self._scratch.mkdir(parents=True, exist_ok=True)
            return self._scratch
        if self._own is None or not self._own.path.exists():
            inside, outside = self._local, parent_of(self._room.folder)
            self._own = (
                ScratchFolder(inside / ".scratch") if inside else ScratchFolder(outside, SCRATCH)
            )
            self._own_ends = weakref.finalize(self, self._own.remove)
        self._own.touch()
        return self._own.path
