"""Which checkpoint is copied when, and what becomes of one that can't be copied or is gone."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest

from jobs.commands import checkpoint_folder, checkpoint_hints
from jobs.commands.checkpoint_copies import Copies, Copy
from jobs.commands.checkpoint_folder import CheckpointFolder
from jobs.commands.checkpoint_layout import Layout, Written
from tests.jobs.local_context import LocalContext

SIZE = 4096
HUGGINGFACE = Layout(pattern="checkpoint-{step}", complete="trainer_state.json")
MEGATRON = Layout(pattern="iter_{step}", tracker="latest.txt")


@dataclass(kw_only=True)
class GangContext(LocalContext):
    """Saves when it is asked to, one after the other; a save may be refused."""

    saving: bool = False
    announced: list[tuple[int, bool]] = field(default_factory=list)
    refuses: bool = False
    saved: list[int] = field(default_factory=list)

    def save_checkpoint(self, step: int, write: Callable[[Path], None]) -> None:
        if self.refuses:  # before `write` is asked for anything
            return
        super().save_checkpoint(step, write)
        self.saved.append(step)

    def finish_saving(self) -> None:
        """Nothing is left to wait for."""

    def announce_checkpoint(self, step: int, *, last: bool = False) -> None:
        self.announced.append((step, last))

    def announced_checkpoint(self, after: int) -> tuple[int, bool] | None:
        return next(((step, last) for step, last in self.announced if step > after), None)


@pytest.fixture
def ctx(tmp_path: Path) -> GangContext:
    return GangContext(folder=tmp_path)


@pytest.fixture
def at(tmp_path: Path) -> Path:
    return tmp_path / "work" / "checkpoints"


@contextmanager
def little_room() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SIZE // 2, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def look(folder: CheckpointFolder, times: int = 1) -> None:
    """Look, without the pause between two looks, until what is copied is copied."""
    for _ in range(times):
        folder._next_look = 0.0
        folder.adopt()
        while folder._copy is not None:
            folder._copy.wait(5.0)
            folder.adopt()


def copies(at: Path) -> list[Path]:
    return list((at.parent / "adopted").glob("*"))


def whole(at: Path, step: int, state: str = "{}") -> Path:
    path = at / f"checkpoint-{step}"
    path.mkdir()
    (path / "weights").write_text(str(step))
    (path / "trainer_state.json").write_text(state)
    return path


@pytest.mark.parametrize("form", ["file", "folder"])
def test_what_found_no_room_ends_nothing_is_told_once_and_copied_again(
    ctx: GangContext, at: Path, form: str
) -> None:
    folder = CheckpointFolder(at, Layout(pattern="{step}.pt", settle=0), ctx)
    path = at / "7.pt"
    if form == "folder":
        path.mkdir()
        path /= "w"
    path.write_bytes(b"x" * SIZE)
    with little_room():
        look(folder, 4)
    assert ctx.saved == []
    (told,) = ctx.lines
    assert "checkpoint of step 7 can't be copied: " in told
    assert "File too large" in told
    assert copies(at) == []
    look(folder)
    assert ctx.saved == [7]
    assert path.exists()


def test_a_part_that_found_no_room_is_refused_so_that_rank_0_hears_of_it(
    ctx: GangContext, at: Path
) -> None:
    ctx.rank, ctx.world_size, ctx.announced = 1, 2, [(7, False)]
    folder = CheckpointFolder(at, Layout(pattern="{step}.pt", settle=0), ctx)
    (at / "7.pt").write_bytes(b"x" * SIZE)
    with little_room(), pytest.raises(OSError, match=r"it can't be copied: .*File too large"):
        look(folder)


def test_what_is_removed_while_it_is_copied_is_gone(ctx: GangContext, at: Path) -> None:
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    path = whole(at, 7)
    (path / "lost").symlink_to("nowhere")
    written = Written(7, path)

    def sign() -> object:  # before the copy it is there, and after it no more
        state = (path / "trainer_state.json").exists()
        shutil.rmtree(path, ignore_errors=not state)
        return state

    copy = Copies(at, at.parent / "adopted", "", {}).begin(written, sign)
    copy.wait(5.0)
    assert copy.vanished
    folder._save(copy, last=False)
    assert ctx.lines == ["checkpoint of step 7 was gone before it was saved"]
    assert ctx.saved == []


def test_of_a_folder_only_files_that_went_make_it_gone(at: Path) -> None:
    copy = Copy(Written(7, at), at)
    lost = ("a", "b", "[Errno 2] No such file or directory: 'a'")
    copy.error = shutil.Error([lost])
    assert copy.vanished
    copy.error = shutil.Error([lost, ("c", "d", "[Errno 28] No space left on device: 'd'")])
    assert not copy.vanished
    assert copy.why == "[Errno 28] No space left on device: 'd'"


def test_the_tracker_of_a_copy_names_the_step_of_the_copy(ctx: GangContext, at: Path) -> None:
    folder = CheckpointFolder(at, MEGATRON, ctx)
    (at / "iter_0000007").mkdir()
    (at / "latest.txt").write_text("9")
    look(folder, 2)
    (saved,) = (ctx.folder / "checkpoints").glob("00000007/*")
    assert (saved / "latest.txt").read_text() == "7"


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        (
            "epoch=*-step={step}.ckpt",
            {"epoch=3-step=500.ckpt": 500, "epoch=12-step=7.ckpt": 7},
            ["last.ckpt", "epoch=3-step=5-v1.ckpt"],
        ),
        ("*/*{step}", {"run/x12": 12, "run/7": 7}, ["x12", "a/b/c3"]),
        ("{step}*", {"12a.pt": 12, "7": 7}, ["a7"]),
    ],
)
def test_a_pattern_has_a_step_and_any_names_around_it(
    tmp_path: Path, pattern: str, fitting: dict[str, int], others: list[str]
) -> None:
    for name in (*fitting, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    written = Layout(pattern=pattern).written(tmp_path)
    assert {str(one.path.relative_to(tmp_path)): one.step for one in written} == fitting


@pytest.mark.parametrize(
    ("text", "whole"),
    [("global_step7", True), ("global_step9\n", True), ("7", True), ("6", False), ("best", False)],
)
def test_a_tracker_says_a_step_or_the_name_of_a_checkpoint(
    tmp_path: Path, text: str, *, whole: bool
) -> None:
    (tmp_path / "latest").write_text(text)
    layout = Layout(pattern="global_step{step}", tracker="latest")
    assert layout.whole(Written(7, tmp_path / "global_step7"), tmp_path, 0.0) is whole


def test_a_checkpoint_whose_sign_never_comes_is_told_once_while_the_command_runs(
    ctx: GangContext, at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = CheckpointFolder(at, Layout(pattern="step-{step}", complete=".metadata"), ctx)
    for step in (5, 6):
        (at / f"step-{step}").mkdir()
        (at / f"step-{step}" / "model.pt").touch()
    look(folder, 2)
    assert ctx.lines == []  # it may still be written
    monkeypatch.setattr(checkpoint_hints, "_UNSIGNED_SECONDS", 0.0)
    look(folder, 3)
    told = "no checkpoint is saved so far: 'step-6' is not whole: it has no '.metadata'"
    assert ctx.lines == [told]
    (at / "step-6" / ".metadata").touch()
    look(folder, 2)
    assert ctx.saved == [6]


def test_the_command_is_watched_while_a_checkpoint_is_copied(
    ctx: GangContext, at: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go = Event()
    fill = Copies._fill
    monkeypatch.setattr(Copies, "_fill", lambda *a, **k: go.wait(30) and fill(*a, **k))
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    whole(at, 7)
    for _ in range(4):
        folder._next_look = 0.0
        folder.adopt()
    assert ctx.saved == []
    go.set()
    look(folder)
    assert ctx.saved == [7]


@pytest.mark.parametrize("removed", [False, True])
def test_a_copy_that_is_not_made_when_the_command_ends_is_given_up(
    ctx: GangContext, at: Path, monkeypatch: pytest.MonkeyPatch, *, removed: bool
) -> None:
    monkeypatch.setattr(checkpoint_folder, "_END_SECONDS", 0.1)
    go, fill = Event(), Copies._fill

    def waits(self: Copies, copy: Copy, *, moves: bool) -> None:
        assert moves or go.wait(30)
        fill(self, copy, moves=moves)

    monkeypatch.setattr(Copies, "_fill", waits)
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    path = whole(at, 7)
    for _ in range(2):
        folder._next_look = 0.0
        folder.adopt()
    given_up = folder._copy
    assert given_up is not None
    if removed:
        shutil.rmtree(path)
    folder.adopt_last()
    go.set()
    given_up.wait(5.0)
    assert ctx.saved == ([] if removed else [7])
    assert not given_up.folder.exists()


def test_a_copy_is_removed_where_its_save_was_refused(ctx: GangContext, at: Path) -> None:
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    whole(at, 7)
    ctx.refuses = True
    look(folder, 2)
    assert folder._last == 7
    look(folder)
    assert copies(at) == []


def test_a_sign_counts_once_nothing_of_it_changes_and_never_torn(
    ctx: GangContext, at: Path
) -> None:
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    path = whole(at, 7, '{"log_his')
    look(folder, 3)
    folder.adopt_last()
    assert ctx.saved == []
    folder.explain(failed=True)
    why = "'checkpoint-7' is not whole: its 'trainer_state.json' is torn"
    assert ctx.lines == [f"no checkpoint was saved: {why}"]
    (path / "trainer_state.json").write_text("{}")
    look(folder)
    assert ctx.saved == []
    (path / "trainer_state.json").write_text('{"log_history": []}')
    look(folder)
    assert ctx.saved == []
    look(folder)
    assert ctx.saved == [7]


def test_a_checkpoint_that_is_written_again_while_it_is_copied_is_copied_later(
    ctx: GangContext, at: Path
) -> None:
    at.mkdir(parents=True)
    written = Written(7, whole(at, 7))
    states = iter(["before", "after"])
    copy = Copies(at, at.parent / "adopted", "", {}).begin(written, lambda: next(states))
    copy.wait(5.0)
    folder = CheckpointFolder(at.parent / "other", HUGGINGFACE, ctx)
    folder._save(copy, last=False)
    assert (ctx.saved, ctx.lines, folder._last) == ([], [], -1)


def test_a_part_that_is_gone_is_refused_where_the_worker_had_parts_before(
    ctx: GangContext, at: Path
) -> None:
    ctx.rank, ctx.world_size, ctx.announced = 1, 2, [(2, False)]
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    look(folder)
    assert ctx.saved == [2]  # it has none so far
    whole(at, 4)
    ctx.announced.append((4, False))
    look(folder)
    assert ctx.saved == [2, 4]
    ctx.announced.append((6, False))
    told = "part of worker 1 of the checkpoint of step 6 was removed before it was saved"
    with pytest.raises(OSError, match=told):  # which skips that save alone
        look(folder)


def test_a_file_that_was_moved_in_with_an_old_time_is_young(ctx: GangContext, at: Path) -> None:
    folder = CheckpointFolder(at, Layout(pattern="{step}.pt", settle=60.0), ctx)
    (at / "7.pt").write_text("half")
    os.utime(at / "7.pt", (1.0, 1.0))
    look(folder, 2)
    assert ctx.saved == []


def test_rank_0_looks_at_what_is_written_at_its_own_pace(ctx: GangContext, at: Path) -> None:
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    looks: list[float] = []
    folder._newest = lambda _layout, time: looks.append(time)
    for _ in range(100):
        folder.adopt()
    assert len(looks) == 1


def test_a_folder_that_the_command_removes_ends_nothing(ctx: GangContext, at: Path) -> None:
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    at.rmdir()
    look(folder, 2)
    folder.adopt_last()
    folder.explain(failed=False)
    assert ctx.lines == [
        "no checkpoint was saved: the command has written nothing into {checkpoints}"
    ]


def test_a_pipe_in_a_checkpoint_is_no_file_and_blocks_nothing(ctx: GangContext, at: Path) -> None:
    folder = CheckpointFolder(at, HUGGINGFACE, ctx)
    os.mkfifo(whole(at, 7) / "pipe")
    look(folder, 2)
    (told,) = ctx.lines
    assert "is no file; it is tried again" in told


def test_what_ended_is_saved_though_there_is_no_room_to_copy_it(
    ctx: GangContext, at: Path
) -> None:
    folder = CheckpointFolder(at, Layout(pattern="{step}.pt", settle=0), ctx)
    (at / "7.pt").write_bytes(b"x" * SIZE)
    with little_room():
        look(folder, 2)
        folder.adopt_last()
    assert ctx.saved == [7]
