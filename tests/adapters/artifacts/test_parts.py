"""Artifacts that several processes make together, and the marks beside artifacts."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.artifact import FileEntry
from orchestrator.core.errors import ArtifactError, DamagedError
from tests.adapters.artifacts.shelf import contents, left_over, put

NAME = "c/step-1"


def add(store: FsspecArtifactStore, part: str, files: dict[str, bytes]) -> dict[str, FileEntry]:
    folder = store.part(NAME, part)
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return dict(store.add(folder, NAME, part))


def both(store: FsspecArtifactStore) -> dict[str, FileEntry]:
    return add(store, "a", {"x": b"1", "deep/y": b"2"}) | add(store, "b", {"x": b"3"})


def is_there(store: FsspecArtifactStore) -> bool:
    try:
        store.manifest(NAME)
    except DamagedError:
        return False
    return True


def test_an_artifact_of_parts_appears_when_it_is_sealed(store: FsspecArtifactStore) -> None:
    files = both(store)
    assert not is_there(store)
    ref = store.seal(NAME, files, {"step": "1"})
    expected = {"a/x": b"1", "a/deep/y": b"2", "b/x": b"3"}
    assert contents(store.fetch(ref)) == expected
    assert (ref.size, store.verify(ref.uri).meta) == (3, {"step": "1"})


def test_a_part_may_be_empty(store: FsspecArtifactStore) -> None:
    assert add(store, "b", {}) == {}
    store.seal(NAME, add(store, "a", {"x": b"1"}), {})
    assert contents(store.load(NAME)[0]) == {"a/x": b"1"}


def test_what_is_added_leaves_no_scratch(store: FsspecArtifactStore, tmp_path: Path) -> None:
    store.seal(NAME, both(store), {})
    assert not [path for path in left_over(tmp_path) if ".scratch" in str(path)]
    assert left_over(tmp_path / "scratch") == []


@pytest.mark.parametrize(("lost", "word"), [("a/x", "lacks"), ("z", "has unknown")])
def test_parts_that_are_not_complete_are_not_sealed(
    store: FsspecArtifactStore, lost: str, word: str
) -> None:
    files = both(store)
    told = {path: entry for path, entry in files.items() if path != lost}
    if word == "lacks":
        told, lost = files | {"z": FileEntry(1, "0" * 64)}, "z"
    else:
        told, lost = {path: files[path] for path in files if path != "a/x"}, "a/x"
    with pytest.raises(DamagedError, match=f"{word} file '{lost}'"):
        store.seal(NAME, told, {})
    assert not is_there(store)


def test_whole_artifacts_and_parts_are_removed(store: FsspecArtifactStore, tmp_path: Path) -> None:
    put(store)
    both(store)
    for name in ("r/train/1", NAME, NAME):
        store.remove(name)
    assert list(store.names("r/train")) == list(store.names("c")) == []
    assert left_over(tmp_path) == []


def test_what_a_crash_left_half_removed_goes_with_the_next(
    local: FsspecArtifactStore, root: Path
) -> None:
    (root / ".trash-1").mkdir(parents=True)
    (root / ".trash-1/file").write_text("x")
    put(local)
    local.remove("r/train/1")
    assert left_over(root) == []


def test_no_space_for_a_part_is_one_line(
    store: FsspecArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = store.part(NAME, "a")
    (folder / "x").write_text("1")

    def full(*_words: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match=r"'c/step-1': No space left on device; free some"):
        store.add(folder, NAME, "a")
    store.drop(folder)
    assert list(store.names("c")) == []


def test_a_part_is_dropped_without_the_others(local: FsspecArtifactStore) -> None:
    files = add(local, "a", {"x": b"1"})
    local.drop(local.part(NAME, "b"))
    local.seal(NAME, files, {})
    assert contents(local.load(NAME)[0]) == {"a/x": b"1"}


def test_a_part_can_be_begun_once(local: FsspecArtifactStore) -> None:
    local.part(NAME, "a")
    with pytest.raises(ArtifactError, match="'c/step-1': File exists"):
        local.part(NAME, "a")


# --- marks --------------------------------------------------------------------------------------


def test_a_mark_says_what_it_was_told_last(store: FsspecArtifactStore) -> None:
    assert store.marked("c/leave") is None
    store.mark("c/leave", "soon")
    store.mark("c/leave", "now")
    assert store.marked("c/leave") == "now"
    assert list(store.names("c")) == ["leave"]
    store.remove("c/leave")
    assert store.marked("c/leave") is None


def test_a_mark_in_a_place_that_no_mark_can_have_is_not_there(store: FsspecArtifactStore) -> None:
    store.mark("c/leave", "now")
    assert store.marked("c/leave/more") is None


@pytest.mark.parametrize("name", ["../x", ".x", "a/.b"])
def test_a_mark_may_not_lead_elsewhere(store: FsspecArtifactStore, name: str) -> None:
    with pytest.raises(ArtifactError, match="artifact"):
        store.mark(name, "x")


def test_a_mark_that_cannot_be_written_leaves_the_one_before(
    local: FsspecArtifactStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local.mark("c/leave", "soon")

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="'c/leave': No space left on device"):
        local.mark("c/leave", "now")
    assert local.marked("c/leave") == "soon"
    assert [path.name for path in left_over(root)] == ["leave"]


def test_a_remote_that_is_away_is_no_missing_mark(
    remote: FsspecArtifactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_words: object, **_more: object) -> bytes:
        raise ConnectionError

    monkeypatch.setattr(MemoryFileSystem, "cat_file", away)
    with pytest.raises(ArtifactError, match="'c/leave': ConnectionError; check its storage"):
        remote.marked("c/leave")
