"""What is torn, altered or lost is found and named, and never taken for the newest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore, manifests
from orchestrator.adapters.artifacts.local_place import LocalPlace
from orchestrator.adapters.artifacts.places import StoragePlace
from orchestrator.adapters.artifacts.remote_place import RemotePlace
from orchestrator.core.artifact import MANIFEST_NAME, ArtifactRef, FileEntry, Manifest
from orchestrator.core.errors import ArtifactError, DamagedError
from tests.adapters.artifacts.shelf import FILES, contents, put

# --- damage -------------------------------------------------------------------------------------


def _path(store: FsspecArtifactStore, path: str) -> tuple[Any, str]:
    """Return the file system that lies below `store`, and where a file of the artifact is."""
    place, name = store._place.inner, f"r/train/1/{path}"
    if isinstance(place, LocalPlace):
        return LocalFileSystem(), str(place.root / name)
    assert isinstance(place, RemotePlace)
    return place._fs, f"{place._root}/{name}"


def _read(store: FsspecArtifactStore, path: str) -> bytes:
    fs, where = _path(store, path)
    return bytes(fs.cat_file(where))


def _write(store: FsspecArtifactStore, path: str, content: bytes) -> None:
    fs, where = _path(store, path)
    fs.pipe_file(where, content)


def _take_away(store: FsspecArtifactStore, path: str) -> None:
    fs, where = _path(store, path)
    fs.rm_file(where)


def _truncate(store: FsspecArtifactStore) -> None:
    _write(store, "weights/a.bin", b"a" * 99)


def _flip(store: FsspecArtifactStore) -> None:
    _write(store, "weights/a.bin", b"a" * 50 + b"c" + b"a" * 49)


def _lose(store: FsspecArtifactStore) -> None:
    _take_away(store, "config.json")


def _swap(store: FsspecArtifactStore) -> None:
    first, second = _read(store, "weights/a.bin"), _read(store, "weights/b.bin")
    _write(store, "weights/a.bin", second)
    _write(store, "weights/b.bin", first)


def _add(store: FsspecArtifactStore) -> None:
    _write(store, "weights/extra.bin", b"x")


def _lose_manifest(store: FsspecArtifactStore) -> None:
    _take_away(store, MANIFEST_NAME)


def _tear_manifest(store: FsspecArtifactStore) -> None:
    _write(store, MANIFEST_NAME, _read(store, MANIFEST_NAME)[:-9])


def _alter_manifest(store: FsspecArtifactStore) -> None:
    _write(store, MANIFEST_NAME, _read(store, MANIFEST_NAME).replace(b'"step"', b'"stop"'))


DAMAGE = {
    _truncate: "file 'weights/a.bin' has 99 bytes, not 100 bytes",
    _flip: "file 'weights/a.bin' has .*, not",
    _swap: "file 'weights/[ab].bin' has .*, not",
    _lose: "lacks file 'config.json'",
    _add: "has unknown file 'weights/extra.bin'",
    _lose_manifest: "is not there, or was never finished",
    _tear_manifest: "has a torn manifest",
    _alter_manifest: "has an altered manifest",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
def test_every_damage_is_found_and_named(
    store: FsspecArtifactStore, damage: Callable[[FsspecArtifactStore], None]
) -> None:
    ref = put(store)
    damage(store)
    with pytest.raises(ArtifactError, match=f"artifact 'r/train/1'.*{DAMAGE[damage]}"):
        store.verify(ref.uri)
    with pytest.raises(ArtifactError, match=f"artifact 'r/train/1'.*{DAMAGE[damage]}"):
        store.fetch(ref)
    with pytest.raises(DamagedError, match=DAMAGE[damage]):
        store.load("r/train/1")


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__.strip("_"))
def test_an_artifact_stands_until_somebody_finds_it_damaged(
    store: FsspecArtifactStore, damage: Callable[[FsspecArtifactStore], None]
) -> None:
    ref = put(store)
    assert store.stands(ref)
    damage(store)
    with pytest.raises(DamagedError) as refused:
        store.fetch(ref)
    assert not store.stands(ref)
    assert store.damage(ref) == str(refused.value)


def test_an_artifact_of_another_digest_or_store_does_not_stand(store: FsspecArtifactStore) -> None:
    ref = put(store)
    assert not store.stands(replace(ref, digest="0" * 64))
    assert not store.stands(replace(ref, uri="memory://elsewhere/r/train/1"))


def test_a_damaged_artifact_may_be_made_again(store: FsspecArtifactStore) -> None:
    put(store)
    _take_away(store, "config.json")
    assert contents(store.fetch(put(store, files={"new": b"x"}))) == {"new": b"x"}


def test_a_manifest_that_leads_out_of_the_artifact_is_refused() -> None:
    evil = Manifest({"../../etc/passwd": FileEntry(1, "0" * 64)})
    with pytest.raises(ArtifactError, match=r"file '../../etc/passwd' is no plain relative path"):
        manifests.read(manifests.write(evil), "r")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\xff", b'{"files": {"a": {}}, "meta": {}}', b"[" * 100_000]
)
def test_a_manifest_of_another_shape_is_torn(text: bytes) -> None:
    with pytest.raises(ArtifactError, match="artifact 'r' has a torn manifest"):
        manifests.read(text, "r")


def test_a_manifest_reads_back_as_it_was_written() -> None:
    manifest = Manifest({"a": FileEntry(1, "0" * 64)}, {"job": "jobs.x"})
    assert manifests.read(manifests.write(manifest), "r") == manifest
    assert json.loads(manifests.write(manifest))["meta"] == {"job": "jobs.x"}


def test_an_artifact_with_another_digest_than_asked_for_is_refused(
    store: FsspecArtifactStore,
) -> None:
    ref = put(store)
    with pytest.raises(ArtifactError, match=r"has digest '.*', not '000000000000'"):
        store.fetch(ArtifactRef(ref.uri, "0" * 64, ref.size))


@pytest.mark.parametrize("uri", ["file:///etc", "{base}/../x", "{base}", "memory://other/a"])
def test_an_artifact_outside_of_the_store_is_refused(local: FsspecArtifactStore, uri: str) -> None:
    with pytest.raises(ArtifactError, match=r"is not in the store|is no plain relative path"):
        local.verify(uri.format(base=local._base))


def test_an_artifact_reached_by_a_link_is_refused(
    local: FsspecArtifactStore, root: Path, tmp_path: Path
) -> None:
    ref = put(local)
    shutil.move(root / "r", tmp_path / "elsewhere")
    (root / "r").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="is reached by a link, 'r'"):
        local.fetch(ref)
    with pytest.raises(ArtifactError, match="is reached by a link, 'r'"):
        put(local, files={"new": b"x"})
    assert (tmp_path / "elsewhere/train/1/config.json").exists()


# --- by name ------------------------------------------------------------------------------------


def test_an_artifact_is_loaded_by_its_name_with_what_its_manifest_says(
    store: FsspecArtifactStore,
) -> None:
    ref = put(store)
    path, manifest = store.load("r/train/1")
    assert contents(path) == FILES
    assert manifest == store.manifest("r/train/1") == store.verify(ref.uri)


def test_what_another_hashes_here_is_not_hashed(local: FsspecArtifactStore) -> None:
    put(local)
    _flip(local)
    local.load("r/train/1", mine=lambda _: False)
    _lose(local)
    with pytest.raises(DamagedError, match=r"lacks file 'config.json'"):
        local.load("r/train/1", mine=lambda _: False)


def test_of_what_lies_elsewhere_whatever_is_brought_is_hashed(remote: FsspecArtifactStore) -> None:
    put(remote)
    _flip(remote)
    remote.load("r/train/1", mine=lambda _: False)
    with pytest.raises(DamagedError, match=r"'weights/a.bin' has "):
        remote.load("r/train/1", mine=lambda name: name == "weights/a.bin")


class LosesFiles:
    """A place whose file is taken away as soon as its files have been listed."""

    def __init__(self, place: StoragePlace, lose: Callable[[], object]) -> None:
        self._place, self._lose = place, lose

    def files(self, name: str) -> frozenset[str]:
        listed = self._place.files(name)
        self._lose()
        return listed

    def __getattr__(self, name: str) -> object:
        return getattr(self._place, name)


def test_what_is_taken_away_while_it_is_read_is_damaged(store: FsspecArtifactStore) -> None:
    put(store)
    losing: Any = lambda place: LosesFiles(place, lambda: _lose(store))  # noqa: E731
    read = FsspecArtifactStore(store._base, store._scratch, stands_before=losing)
    with pytest.raises(DamagedError, match="'r/train/1' was taken away while it was read"):
        read.load("r/train/1")


def test_names_are_told_of_what_is_whole_and_what_is_not(store: FsspecArtifactStore) -> None:
    assert store.names("r/train") == []
    put(store)
    (store.part("r/train/2", "a") / "file").write_text("x")
    folder = store.part("r/train/3", "a")
    (folder / "file").write_text("x")
    store.add(folder, "r/train/3", "a")
    assert set(store.names("r/train")) >= {"1", "3"}
    with pytest.raises(DamagedError, match="'r/train/3' is not there, or was never finished"):
        store.manifest("r/train/3")


def test_a_store_that_cannot_be_read_is_no_empty_store(
    remote: FsspecArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(remote)

    def away(*_words: object, **_more: object) -> bytes:
        raise ConnectionError

    monkeypatch.setattr(MemoryFileSystem, "cat_file", away)
    with pytest.raises(ArtifactError, match="artifact 'r/train/1': ConnectionError; check its"):
        remote.load("r/train/1")
