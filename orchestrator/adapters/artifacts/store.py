"""The artifact store: immutable folders that prove themselves.

Every file is hashed when it is stored and again each time it is fetched. What was torn by a
crash, altered or lost is found and named, and may be made again under the same name; what is
intact is never replaced by something else.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from orchestrator.adapters.artifacts import manifests
from orchestrator.adapters.artifacts.places import (
    LocalPlace,
    Place,
    RemotePlace,
    regular_files,
)
from orchestrator.core.artifact import ArtifactRef, FileEntry, Manifest
from orchestrator.core.errors import ArtifactError

_FILE_SCHEME = "file://"


class FsspecArtifactStore:
    """The port `ArtifactStore` on a folder, or on any URI that fsspec knows.

    `scratch` is where folders are filled and downloads are kept. By default it lies inside a
    local store, so that a commit is a rename, or in a folder of this process for a remote one.
    """

    def __init__(self, uri: str, scratch: Path | None = None) -> None:
        """Open the store at `uri`; nothing is made before it is needed.

        Raises:
            ArtifactError: fsspec doesn't know the URI, or lacks the package for it.
        """
        self._place, self._base = _open(uri)
        self._scratch = scratch
        if scratch is None and isinstance(self._place, LocalPlace):
            self._scratch = self._place.root / ".scratch"

    # --- writing -------------------------------------------------------------------------------

    def scratch(self, name: str) -> Path:
        """Return a new empty local folder to fill; it disappears when committed or dropped."""
        with _translated(name):
            plain = manifests.check_name(name, "scratch folder").replace("/", "-")
            folder = self._scratch_root() / f"{plain[-80:]}-{uuid.uuid4().hex}"
            folder.mkdir()
            return folder

    def drop(self, folder: Path) -> None:
        """Remove a scratch folder that will not be committed."""
        shutil.rmtree(folder, ignore_errors=True)

    def commit(self, folder: Path, name: str, meta: Mapping[str, str]) -> ArtifactRef:
        """Store `folder` as artifact `name`: hashes and fsyncs, manifest last, then renames.

        Raises:
            ArtifactError: It exists already with other contents, or there is no space.
        """
        manifests.check_artifact_name(name)
        with _translated(name):
            manifest = Manifest(_hash_folder(folder), dict(meta))
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
            found = _check(self._place, name)
        except manifests.DamagedError:
            self._place.remove(name)
            return False
        if found.digest != manifest.digest:
            message = f"artifact {name!r} exists with other contents; take another name"
            raise ArtifactError(message)
        return True

    # --- reading -------------------------------------------------------------------------------

    def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local folder with the artifact, every file verified against its hash."""
        name = self._name(ref.uri)
        with _translated(name):
            path, manifest = self._load(name)
        if manifest.digest != ref.digest:
            has, says = manifest.digest[:12], ref.digest[:12]
            message = f"artifact {ref.uri!r} has digest {has!r}, not {says!r}; make it again"
            raise ArtifactError(message)
        return path

    def verify(self, uri: str) -> Manifest:
        """Check every file of the artifact at `uri` against its manifest; return that."""
        name = self._name(uri)
        with _translated(name):
            return _check(self._place, name)

    def newest(self, prefix: str) -> tuple[str, ArtifactRef] | None:
        """Return the last, by name, of the artifacts under `prefix` that verifies."""
        manifests.check_artifact_name(prefix)
        with _translated(prefix):
            for child in sorted(self._place.children(prefix), reverse=True):
                name = f"{prefix}/{child}"
                with suppress(manifests.DamagedError), _translated(name):
                    return name, self._ref(name, self._load(name)[1])
        return None

    def _load(self, name: str) -> tuple[Path, Manifest]:
        """Return a verified local folder of `name`; the stored one itself if it is local."""
        if isinstance(self._place, LocalPlace):
            return self._place.root / name, _check(self._place, name)
        manifest = _manifest(self._place, name)
        cache = LocalPlace(self._scratch_root() / "cache")
        try:
            _check(cache, manifest.digest)
        except manifests.DamagedError:
            cache.remove(manifest.digest)
            self._download(name, manifest, cache)
        return cache.root / manifest.digest, manifest

    def _download(self, name: str, manifest: Manifest, cache: LocalPlace) -> None:
        manifests.compare_names(manifest, self._place.files(name), name)
        folder = self.scratch(name)
        try:
            for path, entry in manifest.files.items():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with self._place.open(name, path) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                with target.open("rb") as stream:
                    manifests.compare_file(entry, manifests.hash_stream(stream), path, name)
            try:
                cache.put(folder, manifest.digest, manifests.write(manifest))
            except FileExistsError:  # another thread was faster
                _check(cache, manifest.digest)
        finally:
            self.drop(folder)

    def mark(self, name: str, text: str) -> None:
        """Write a small text under `name`, whole or not at all; the last one stays."""
        manifests.check_artifact_name(name)
        with _translated(name):
            self._place.write(name, text.encode())

    def marked(self, name: str) -> str | None:
        """Return the text under `name`, or `None` where there is none."""
        manifests.check_artifact_name(name)
        with _translated(name):
            found = self._place.read(name)
        return None if found is None else found.decode()

    # --- names ---------------------------------------------------------------------------------

    def _ref(self, name: str, manifest: Manifest) -> ArtifactRef:
        return ArtifactRef(f"{self._base}/{name}", manifest.digest, manifest.size)

    def _name(self, uri: str) -> str:
        if not uri.startswith(f"{self._base}/"):
            message = f"artifact {uri!r} is not in the store {self._base!r}; copy it there"
            raise ArtifactError(message)
        return manifests.check_artifact_name(uri.removeprefix(f"{self._base}/"))

    def _scratch_root(self) -> Path:
        if self._scratch is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="orchestrator-"))
            weakref.finalize(self, shutil.rmtree, self._scratch, ignore_errors=True)
        self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch


def _open(uri: str) -> tuple[Place, str]:
    if "://" not in uri or uri.startswith(_FILE_SCHEME):
        is_uri = uri.startswith(_FILE_SCHEME)
        path = Path(unquote(uri.removeprefix(_FILE_SCHEME)) if is_uri else uri).absolute()
        return LocalPlace(path), f"{_FILE_SCHEME}{path}"
    from fsspec.core import url_to_fs

    try:
        fs, root = url_to_fs(uri)
    except (ImportError, ValueError, OSError) as error:
        message = f"storage.uri {uri!r} can't be opened: {' '.join(str(error).split())}"
        raise ArtifactError(message) from error
    return RemotePlace(fs, root), uri.rstrip("/")


def _manifest(place: Place, name: str) -> Manifest:
    text = place.manifest(name)
    if text is None:
        message = f"artifact {name!r} is not there, or was never finished; make it again"
        raise manifests.DamagedError(message)
    return manifests.read(text, name)


def _check(place: Place, name: str) -> Manifest:
    manifest = _manifest(place, name)
    manifests.compare_names(manifest, place.files(name), name)
    for path, entry in manifest.files.items():
        with place.open(name, path) as stream:
            manifests.compare_file(entry, manifests.hash_stream(stream), path, name)
    return manifest


def _hash_folder(folder: Path) -> dict[str, FileEntry]:
    """Hash every file of `folder`, and flush it to disk while it is open."""
    files = {}
    for path in sorted(regular_files(folder)):
        manifests.check_name(path, "file")
        if manifests.reserved(path):
            message = f"file {path!r} has the name of the manifest; take another name"
            raise ArtifactError(message)
        with (folder / path).open("rb") as stream:
            files[path] = manifests.hash_stream(stream)
            _flush(stream)
    return files


def _flush(stream: BinaryIO) -> None:
    os.fsync(stream.fileno())


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
        way_out = _WAYS_OUT.get(error.errno or 0, "check its storage")
        raise ArtifactError(f"artifact {name!r}: {reason}; {way_out}") from error


_WAYS_OUT = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "check the permissions"),
}
