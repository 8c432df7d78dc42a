"""Scratch folders go with their process, or with the next one when that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.node.scratch import LOCK, OLD_SECONDS, ScratchFolder

DIES = """
import os, signal, sys
from orchestrator.adapters.artifacts import FsspecArtifactStore
store = FsspecArtifactStore(sys.argv[1])
(store.scratch("half") / "file").write_text("x")
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_in(root: Path) -> Path:
    """Have a process fill a scratch folder of the store at `root`, and be killed."""
    done = subprocess.run([sys.executable, "-c", DIES, str(root)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    [file] = (root / ".scratch").glob("*/half-*/file")
    return file.parent.parent


def test_the_scratch_of_a_killed_process_goes_with_the_next(tmp_path: Path) -> None:
    left = killed_in(tmp_path)
    store = FsspecArtifactStore(str(tmp_path))
    folder = store.scratch("x")
    assert not left.exists()
    assert [*(tmp_path / ".scratch").iterdir()] == [folder.parent]


def test_a_process_that_lives_keeps_its_scratch(tmp_path: Path) -> None:
    first, second = FsspecArtifactStore(str(tmp_path)), FsspecArtifactStore(str(tmp_path))
    folder = first.scratch("x")
    second.scratch("x")
    assert folder.is_dir()


def test_a_scratch_folder_goes_with_its_store(tmp_path: Path) -> None:
    store = FsspecArtifactStore(str(tmp_path))
    store.scratch("x")
    del store
    assert [*(tmp_path / ".scratch").iterdir()] == []


def test_scratch_is_made_again_where_somebody_has_removed_it(tmp_path: Path) -> None:
    store = FsspecArtifactStore(str(tmp_path))
    (store.scratch("x") / ".." / LOCK).unlink()
    store.scratch("x").rmdir()
    for path in (tmp_path / ".scratch").glob("*/*"):
        path.rmdir()
    next((tmp_path / ".scratch").iterdir()).rmdir()
    assert store.scratch("x").is_dir()


@pytest.mark.parametrize(("age", "stays"), [(OLD_SECONDS / 2, True), (OLD_SECONDS * 2, False)])
def test_what_another_machine_left_goes_when_it_is_old(
    tmp_path: Path, *, age: float, stays: bool
) -> None:
    left = killed_in(tmp_path)
    (left / LOCK).write_text("another boot")
    when = (left / LOCK).stat().st_mtime - age
    os.utime(left / LOCK, (when, when))
    ScratchFolder(tmp_path / ".scratch").remove()
    assert left.exists() is stays


def test_a_forked_child_does_not_remove_the_scratch_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ScratchFolder(tmp_path)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    folder.remove()
    monkeypatch.undo()
    assert folder.path.exists()
    folder.remove()
    assert not folder.path.exists()


def test_a_folder_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir
    first: list[Path] = []

    def swept_at_once(self: Path, mode: int = 0o777, **options: bool) -> None:
        make(self, mode, **options)
        if self.parent == tmp_path and not first:
            first.append(self)
            self.rmdir()

    monkeypatch.setattr(Path, "mkdir", swept_at_once)
    folder = ScratchFolder(tmp_path)
    assert first
    assert folder.path.exists()
    folder.remove()


def test_scratch_in_the_temporary_folder_is_swept_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    first = ScratchFolder(tmp_path, "some-")
    os.close(first._handle)  # as the end of its process does
    second = ScratchFolder(tmp_path, "some-")
    assert [*tmp_path.iterdir()] == [second.path]
    second.remove()
