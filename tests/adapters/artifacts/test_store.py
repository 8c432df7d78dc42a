"""The artifact store: what is intact comes back, what is not is found, nothing is left over."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.artifacts.local_place import LocalPlace
from orchestrator.adapters.artifacts.remote_place import RemotePlace
from orchestrator.core.artifact import MANIFEST_NAME, FileEntry, Hashed
from orchestrator.core.errors import (
    ArtifactError,
    DamagedError,
    StorageError,
    StorageSetUpError,
)
from tests.adapters.artifacts.shelf import FILES, contents, left_over, put, race_with

# --- what is stored comes back ------------------------------------------------------------------


def test_an_artifact_comes_back_with_all_its_files(store: FsspecArtifactStore) -> None:
    ref = put(store)
    assert contents(store.fetch(ref)) == FILES
    assert ref.size == 202
    assert store.verify(ref.uri).meta == {"step": "1"}


def test_a_single_file_is_read_and_proven_alone(store: FsspecArtifactStore) -> None:
    ref = put(store)
    name, content = next(iter(FILES.items()))
    assert store.read(ref, name) == content
    with pytest.raises(ArtifactError, match="has no 'none"):
        store.read(ref, "none.json")
    with pytest.raises(ArtifactError, match="is another one"):
        store.read(replace(ref, digest="0" * 64), name)


def test_a_single_file_that_was_altered_is_not_read(
    local: FsspecArtifactStore, root: Path
) -> None:
    ref = put(local)
    name = next(iter(FILES))
    (root / "r/train/1" / name).write_bytes(b"other")
    with pytest.raises(DamagedError):
        local.read(ref, name)


def test_a_second_store_at_the_same_uri_finds_it(local: FsspecArtifactStore, root: Path) -> None:
    ref = put(local)
    assert contents(FsspecArtifactStore(str(root)).fetch(ref)) == FILES


def test_a_local_artifact_is_not_copied(local: FsspecArtifactStore, root: Path) -> None:
    assert local.fetch(put(local)) == root / "r/train/1"


def test_a_remote_artifact_is_downloaded_once(remote: FsspecArtifactStore) -> None:
    ref = put(remote)
    first = remote.fetch(ref)
    assert remote.fetch(ref) == first
    (first / "config.json").write_bytes(b"[]")
    assert contents(remote.fetch(ref)) == FILES


def test_a_remote_store_makes_a_scratch_folder_of_its_own(remote: FsspecArtifactStore) -> None:
    alone = FsspecArtifactStore(f"memory://{uuid.uuid4().hex}")
    folder = alone.scratch("x")
    assert folder.is_dir()
    del alone
    assert not folder.parent.exists()


def test_equal_contents_have_equal_digests_wherever_they_lie(
    local: FsspecArtifactStore, remote: FsspecArtifactStore
) -> None:
    assert put(local).digest == put(remote, "other/name").digest


def test_an_empty_file_and_an_odd_name_are_kept(store: FsspecArtifactStore) -> None:
    files = {"empty": b"", "a b/ü #%41.txt": b"x", ".hidden": b"y"}
    assert contents(store.fetch(put(store, files=files))) == files


def test_a_file_that_was_hashed_as_it_was_written_is_not_read_again(
    store: FsspecArtifactStore,
) -> None:
    folder = store.scratch("r/export/1")
    (folder / "torn").write_bytes(b"what came to the disk")
    meant = hashlib.sha256(b"what should have come").hexdigest()
    said = {"torn": hashed(folder / "torn", meant), "gone": hashed(folder / "torn", meant)}
    ref = store.commit(folder, "r/export/1", {}, said)
    with pytest.raises(ArtifactError, match=rf"file 'torn' has .*, not {meant[:12]}"):
        store.fetch(ref)


@pytest.mark.parametrize("later", [b"other", b"other contents"])
def test_a_file_that_changed_after_it_was_hashed_is_hashed_anew(
    store: FsspecArtifactStore, later: bytes
) -> None:
    folder = store.scratch("r/export/1")
    (folder / "file").write_bytes(b"first")
    said = {"file": hashed(folder / "file", hashlib.sha256(b"first").hexdigest())}
    (folder / "file").write_bytes(later)
    os.utime(folder / "file", ns=(0, said["file"].changed + 1))
    ref = store.commit(folder, "r/export/1", {}, said)
    assert contents(store.fetch(ref)) == {"file": later}


def hashed(file: Path, sha256: str) -> Hashed:
    found = file.stat()
    return Hashed(FileEntry(found.st_size, sha256), found.st_mtime_ns)


def test_a_scratch_folder_is_new_and_empty_and_can_be_dropped(store: FsspecArtifactStore) -> None:
    first, second = store.scratch("r/train/1"), store.scratch("r/train/1")
    assert first != second
    assert list(first.iterdir()) == []
    (first / "file").write_text("x")
    store.drop(first)
    store.drop(first)
    assert not first.exists()


# --- committing ---------------------------------------------------------------------------------


def test_the_same_contents_may_be_committed_again(store: FsspecArtifactStore) -> None:
    assert put(store) == put(store)


def test_other_contents_under_the_same_name_are_refused(store: FsspecArtifactStore) -> None:
    ref = put(store)
    with pytest.raises(ArtifactError, match="'r/train/1' exists with other contents; take"):
        put(store, files={"other": b"x"})
    assert contents(store.fetch(ref)) == FILES


def test_a_committed_scratch_folder_is_gone(store: FsspecArtifactStore) -> None:
    folder = store.scratch("r/train/1")
    (folder / "file").write_text("x")
    store.commit(folder, "r/train/1", {})
    assert not folder.exists()


@pytest.mark.parametrize(
    "name",
    ["", "/etc", "a/../b", "..", "a//b", "a/", "./a", ".a", "a/.b", "a\\b", "a\nb", "\ud800"],
)
def test_a_name_that_leads_elsewhere_is_refused(local: FsspecArtifactStore, name: str) -> None:
    with pytest.raises(ArtifactError, match="artifact"):
        local.commit(local.scratch("x"), name, {})


def test_a_link_is_not_followed(local: FsspecArtifactStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = local.scratch("r")
    (folder / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match=r"'link' in 'r-.*' is no regular file"):
        local.commit(folder, "r", {})


def test_a_job_may_not_write_the_manifest(local: FsspecArtifactStore) -> None:
    with pytest.raises(ArtifactError, match=r"'manifest.json' has the name of the manifest"):
        put(local, files={MANIFEST_NAME: b"{}"})


def test_a_folder_that_is_not_there_is_no_empty_artifact(local: FsspecArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="artifact 'r': No such file or directory; check its"):
        local.commit(local.scratch("r") / "nothing", "r", {})


def test_a_folder_of_another_file_system_is_carried_over(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FsspecArtifactStore(str(root), tmp_path / "scratch")
    rename = Path.rename

    def across(self: Path, target: Path) -> Path:
        if tmp_path / "scratch" in self.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", across)
    ref = put(store)
    assert contents(store.fetch(ref)) == FILES
    assert left_over(tmp_path / "scratch") == []
    assert [path.name for path in root.iterdir()] == ["r"]


@pytest.mark.parametrize("kind", [LocalPlace, RemotePlace])
def test_of_two_equal_commits_in_a_race_both_are_fine(
    kind: type, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = request.getfixturevalue("local" if kind is LocalPlace else "remote")
    race_with(monkeypatch, kind, lambda: put(store))
    assert contents(store.fetch(put(store))) == FILES


def test_of_two_different_commits_in_a_race_the_second_is_refused(
    local: FsspecArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    race_with(monkeypatch, LocalPlace, lambda: put(local, files={"first": b"x"}))
    with pytest.raises(ArtifactError, match="exists with other contents"):
        put(local)


def test_a_torn_artifact_that_appears_in_a_race_is_no_success(
    local: FsspecArtifactStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tear() -> None:
        (root / "r/train/1").mkdir(parents=True)
        (root / "r/train/1/file").write_text("torn")

    race_with(monkeypatch, LocalPlace, tear)
    with pytest.raises(ArtifactError, match="'r/train/1'"):
        put(local)


# --- no space, no permission --------------------------------------------------------------------


def test_no_space_left_is_one_line_and_leaves_nothing(
    local: FsspecArtifactStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = local.scratch("r")
    (folder / "file").write_text("x")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"artifact 'r': No space left on device; free some"):
        local.commit(folder, "r", {})
    local.drop(folder)
    assert left_over(root) == []


def test_no_space_left_for_the_manifest_leaves_no_manifest(
    local: FsspecArtifactStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target == root / "r/train/1":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(ArtifactError, match="No space left on device"):
        put(local)
    assert not list(root.rglob(MANIFEST_NAME))


def test_a_remote_that_is_full_keeps_no_part_of_an_artifact(
    remote: FsspecArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = MemoryFileSystem.put_file

    def full(self: MemoryFileSystem, local: str, path: str) -> None:
        if path.endswith("b.bin"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        send(self, local, path)

    monkeypatch.setattr(MemoryFileSystem, "put_file", full)
    with pytest.raises(ArtifactError, match="'r/train/1': No space left on device"):
        put(remote)
    monkeypatch.undo()
    assert MemoryFileSystem().find(remote._base.removeprefix("memory:/")) == []


def test_a_scratch_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = FsspecArtifactStore(str(tmp_path / "file"))
    with pytest.raises(StorageError, match=r"artifact 'r': (File exists|Not a directory)"):
        store.scratch("r")


def test_a_folder_that_is_none_for_a_while_is_the_storage(tmp_path: Path) -> None:
    store = FsspecArtifactStore(str(tmp_path))
    folder = store.scratch("r")
    (folder / "w").write_text("x")
    (tmp_path / "run").write_text("what lies below a mount")
    with pytest.raises(StorageError, match="'run/train/1'"):
        store.commit(folder, "run/train/1", {})
    with pytest.raises(StorageError):
        store.part("run/train/1", "rank-0")


@pytest.mark.parametrize("uri", ["nosuch://x/y", "s4://"])
def test_an_unknown_storage_is_one_line(uri: str) -> None:
    with pytest.raises(StorageSetUpError, match=f"storage.uri '{uri}' can't be opened"):
        FsspecArtifactStore(uri)


def test_a_mark_is_written_though_others_remove_its_folder_meanwhile(tmp_path: Path) -> None:
    """Workers mark what they have verified, and rank 0 removes the marks when it knows."""
    place, ended = LocalPlace(tmp_path), Event()

    def remove() -> None:
        while not ended.is_set():
            if place.read("verified/1/0") is not None:
                place.remove("verified/1")

    remover = Thread(target=remove)
    remover.start()
    try:
        for number in range(40):
            place.write("verified/1/0", str(number).encode())
    finally:
        ended.set()
        remover.join()
    place.write("verified/1/0", b"last")
    assert place.read("verified/1/0") == b"last"
