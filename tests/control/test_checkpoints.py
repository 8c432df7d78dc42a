"""One worker and its checkpoints: what it goes on from, what it saves, who may not any more."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator.adapters.artifacts.local_place import LocalPlace
from orchestrator.core.artifact import MANIFEST_NAME
from orchestrator.core.errors import ArtifactError
from orchestrator.core.failure import FailureKind
from orchestrator.messages import Failed, LogLine, Message, Points, Resumed, Saved, Succeeded
from tests.control.conftest import Bench

Until = Callable[[Callable[[], bool]], None]

SAVES = """
    import threading
    written, go = threading.Event(), threading.Event()

    def job(ctx, *, steps):
        begin = ctx.latest_checkpoint()
        ctx.log("from " + str(begin and (begin.step, (begin.path / "w").read_text())))
        for step in range(begin.step if begin else 0, steps):
            ctx.save_checkpoint(
                step + 1, lambda folder, step=step: (folder / "w").write_text(f"w{step}")
            )

    def anew(ctx):
        ctx.save_checkpoint(1, lambda folder: (folder / "w").write_text("new"))

    def too_low(ctx):
        ctx.save_checkpoint(ctx.latest_checkpoint().step, print)

    def slow(ctx):
        begin = ctx.latest_checkpoint()
        def write(folder):
            (folder / "w").write_text("stale")
            written.set()
            go.wait(10)
        ctx.save_checkpoint(begin.step + 1 if begin else 1, write)
        written.wait(10)
        ctx.log("begun")
    """


def went_on_from(bench: Bench, *, steps: int, attempt: int, **changes: object) -> str:
    [line] = bench.lines(SAVES, params={"steps": steps}, attempt=attempt, **changes)
    return line.removeprefix("from ")


# --- going on -----------------------------------------------------------------------------------


def test_a_second_attempt_goes_on_from_the_last_checkpoint(bench: Bench) -> None:
    assert went_on_from(bench, steps=2, attempt=1) == "None"
    assert went_on_from(bench, steps=4, attempt=2) == "(2, 'w1')"
    assert bench.checkpoints() == ["2-3-1", "3-3-2", "4-3-2"]
    meta = bench.store.manifest("checkpoints/r2-1/train/step-0000000004-0003-0002").meta
    assert (meta["step"], meta["attempt"], meta["pool"], meta["workers"]) == (
        "4",
        "2",
        "nvidia",
        "1",
    )


def test_it_says_from_where_it_goes_on_and_what_it_saved(bench: Bench) -> None:
    first = bench.messages(SAVES, params={"steps": 1})
    assert [m for m in first if isinstance(m, Resumed)] == []
    assert [m for m in first if isinstance(m, Saved)] == [Saved(1)]
    again = bench.messages(SAVES, params={"steps": 2}, attempt=2)
    assert [m for m in again if isinstance(m, Resumed | Saved)] == [Resumed(1), Saved(2)]


def test_it_is_the_same_however_often_the_job_asks(bench: Bench) -> None:
    source = """
        def job(ctx):
            assert ctx.latest_checkpoint() is None
            ctx.save_checkpoint(1, lambda folder: (folder / "w").write_text("x"))
            assert ctx.latest_checkpoint() is None
        """
    bench.result(source)


def test_a_torn_checkpoint_is_passed_over(bench: Bench) -> None:
    went_on_from(bench, steps=2, attempt=1)
    (bench.folder_of(2) / "rank-0/w").write_text("torn")
    assert went_on_from(bench, steps=2, attempt=2) == "(1, 'w0')"
    assert bench.checkpoints() == ["1-3-1", "2-3-2"]


def test_a_checkpoint_under_the_name_of_another_is_passed_over(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    shutil.rmtree(bench.folder_of(3))
    shutil.copytree(bench.folder_of(1), bench.folder_of(3))
    assert went_on_from(bench, steps=0, attempt=2) == "(2, 'w1')"


def test_an_artifact_that_is_no_checkpoint_is_passed_over(bench: Bench) -> None:
    went_on_from(bench, steps=1, attempt=1)
    name = "checkpoints/r2-1/train/step-0000000009-0003-0001"
    bench.artifact(name, {"w": b"x"})
    assert went_on_from(bench, steps=0, attempt=2) == "(1, 'w0')"


def test_stages_and_runs_do_not_see_the_checkpoints_of_others(bench: Bench) -> None:
    went_on_from(bench, steps=1, attempt=1)
    assert went_on_from(bench, steps=0, attempt=2, stage="tune") == "None"
    assert went_on_from(bench, steps=0, attempt=2, run="r2-10") == "None"


def test_rolling_back_goes_on_from_before_a_step_and_voids_the_rest(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    assert went_on_from(bench, steps=0, attempt=2, before=3) == "(2, 'w1')"
    assert went_on_from(bench, steps=3, attempt=3) == "(2, 'w1')"
    assert bench.checkpoints() == ["1-3-1", "2-3-1", "3-3-3"]


def test_a_job_without_checkpoints_leaves_no_trace_of_them(bench: Bench) -> None:
    bench.result("def job(ctx): ctx.metrics({}, step=1)")
    assert bench.store.names("checkpoints") == []


def test_a_job_that_does_not_ask_begins_anew(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    bench.result(SAVES, job="anew", attempt=2)
    assert went_on_from(bench, steps=0, attempt=3) == "(1, 'new')"
    assert bench.checkpoints() == ["1-3-2"]


# --- saving -------------------------------------------------------------------------------------


def test_the_job_goes_on_while_its_checkpoint_is_written(bench: Bench) -> None:
    bench.result("""
        import threading
        def job(ctx):
            gone_on, written = threading.Event(), threading.Event()
            def write(folder):
                assert gone_on.wait(10)
                (folder / "w").write_text("x")
                written.set()
            ctx.save_checkpoint(1, write)
            assert not written.is_set()
            gone_on.set()
        """)
    assert bench.checkpoints() == ["1-3-1"]


def test_a_second_save_waits_for_the_first_and_both_say_how_long(bench: Bench) -> None:
    messages = bench.messages("""
        def job(ctx):
            alive = []
            def write(folder):
                alive.append(1)
                assert len(alive) == 1
                (folder / "w").write_text("x")
                alive.pop()
            for step in (1, 2, 3):
                ctx.save_checkpoint(step, write)
        """)
    assert isinstance(messages[-1], Succeeded)
    points = [m for m in messages if isinstance(m, Points)]
    assert [point.step for point in points] == [1, 2, 3]
    names = {"checkpoint/save_seconds", "checkpoint/stall_seconds"}
    assert all(point.values.keys() == names for point in points)


@pytest.mark.parametrize(("first", "second"), [(5, 5), (5, 4)])
def test_steps_that_do_not_grow_are_refused(bench: Bench, first: int, second: int) -> None:
    failure = bench.failure(f"""
        def job(ctx):
            ctx.save_checkpoint({first}, print)
            ctx.save_checkpoint({second}, print)
        """)
    assert failure.evidence == f"save_checkpoint({second}): steps grow; take {first + 1} or more"
    assert failure.kind is FailureKind.USER_CODE


def test_a_step_below_that_of_the_checkpoint_gone_on_from_is_refused(bench: Bench) -> None:
    went_on_from(bench, steps=2, attempt=1)
    failure = bench.failure(SAVES, job="too_low", attempt=2)
    assert failure.evidence == "save_checkpoint(2): steps grow; take 3 or more"


BREAKS = """
    def job(ctx):
        def write(folder):
            (folder / "w").write_text("half")
            raise OSError({error})
        ctx.save_checkpoint(5, write)
        {then}
    """


@pytest.mark.parametrize(
    "then", ["pass", "while True: ctx.log('on')", "ctx.save_checkpoint(6, print)"]
)
def test_a_save_that_breaks_ends_the_job_and_leaves_nothing(bench: Bench, then: str) -> None:
    failure = bench.failure(BREAKS.format(error="'no luck'", then=then))
    assert failure.evidence == "OSError: no luck"
    assert failure.step in {5, 6}
    assert bench.scratch() == []
    assert not list(bench.folder_of(5).parent.rglob("w"))


def test_a_job_that_swallows_it_does_not_succeed(bench: Bench) -> None:
    then = """
        for _ in range(1000):
            try:
                ctx.log("on")
            except OSError:
                break"""
    assert (
        bench.failure(BREAKS.format(error="'no luck'", then=then)).evidence == "OSError: no luck"
    )


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line(bench: Bench, error: int) -> None:
    failure = bench.failure(BREAKS.format(error=f"{error}, 'full'", then="pass"))
    assert failure.evidence == "checkpoint of step 5: full; free some space"
    assert failure.kind is FailureKind.DATA


def test_a_store_that_is_full_is_one_line(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    seal = LocalPlace.seal

    def full(self: LocalPlace, name: str, manifest: bytes) -> None:
        if "step-0000000002" in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        seal(self, name, manifest)

    monkeypatch.setattr(LocalPlace, "seal", full)
    failure = bench.failure(SAVES, params={"steps": 3})
    assert failure.evidence.endswith("-0003-0001': No space left on device; free some space")
    assert failure.kind is FailureKind.DATA
    assert went_on_from(bench, steps=0, attempt=2) == "(1, 'w0')"


def test_a_job_that_fails_keeps_the_checkpoint_it_had_begun(bench: Bench) -> None:
    failure = bench.failure("""
        import threading
        def job(ctx):
            failing = threading.Event()
            def write(folder):
                failing.wait(10)
                (folder / "w").write_text("x")
            ctx.save_checkpoint(1, write)
            try:
                raise ValueError("bad")
            finally:
                failing.set()
        """)
    assert failure.evidence == "ValueError: bad"
    assert bench.checkpoints() == ["1-3-1"]
    assert (bench.folder_of(1) / "rank-0/w").read_text() == "x"


# --- the fence ----------------------------------------------------------------------------------


def begin(bench: Bench, attempt: int) -> tuple[Iterator[Sequence[Message]], ModuleType]:
    """Let attempt `attempt` come to the middle of a save."""
    bench.write(SAVES)
    batches = bench.stream(bench.request("slow", attempt=attempt))
    while LogLine(0, "begun") not in next(batches):
        pass
    return batches, sys.modules[f"{bench.package}.jobs"]


def test_an_attempt_that_was_followed_commits_nothing(bench: Bench) -> None:
    went_on_from(bench, steps=2, attempt=1)
    stale, module = begin(bench, 2)
    bench.store.mark("checkpoints/r2-1/train/claims/0003-0003-open", "")
    module.go.set()
    outcome = [message for batch in stale for message in batch][-1]
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.CANCELLED
    assert outcome.failure.evidence == (
        "attempt 2 of epoch 3 must not save any more: attempt 3 of epoch 3 has claimed "
        "'checkpoints/r2-1/train'"
    )
    assert not bench.folder_of(3, attempt=2).exists()


def test_what_slips_past_the_fence_is_not_gone_on_from(bench: Bench) -> None:
    went_on_from(bench, steps=2, attempt=1)
    assert went_on_from(bench, steps=3, attempt=2) == "(2, 'w1')"
    meta = {"step": "9", "epoch": "3", "attempt": "1"}
    name = "checkpoints/r2-1/train/step-0000000009-0003-0001"
    bench.artifact(name, {"w": b"stale"}, meta)
    assert went_on_from(bench, steps=0, attempt=3) == "(3, 'w2')"


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_attempt_that_comes_too_late_goes_on_from_nothing(bench: Bench, attempt: int) -> None:
    went_on_from(bench, steps=1, attempt=2)
    failure = bench.failure(SAVES, params={"steps": 2}, attempt=attempt)
    assert failure.kind is FailureKind.CANCELLED
    assert ("must not save any more" if attempt == 1 else "has run already") in failure.evidence


def test_a_newer_epoch_goes_before_any_number(bench: Bench) -> None:
    went_on_from(bench, steps=1, attempt=9)
    assert went_on_from(bench, steps=0, attempt=2, epoch=4) == "(1, 'w0')"


def test_an_attempt_that_is_followed_while_it_chooses_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on_from(bench, steps=1, attempt=1)
    load = type(bench.store).load

    def followed(self: object, name: str, *, trusted: bool) -> object:
        bench.store.mark("checkpoints/r2-1/train/claims/0004-0003-open", "")
        return load(bench.store, name, trusted=trusted)

    monkeypatch.setattr(type(bench.store), "load", followed)
    failure = bench.failure(SAVES, params={"steps": 2}, attempt=2)
    assert "attempt 3 of epoch 4 has claimed" in failure.evidence


# --- what is kept -------------------------------------------------------------------------------


def test_the_newest_are_kept(bench: Bench) -> None:
    went_on_from(bench, steps=6, attempt=1, keep=2)
    assert bench.checkpoints() == ["5-3-1", "6-3-1"]


def test_the_one_gone_on_from_is_kept(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    went_on_from(bench, steps=7, attempt=2, keep=1)
    assert bench.checkpoints() == ["3-3-1", "7-3-2"]


def test_what_is_torn_does_not_count_as_kept_and_is_removed(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    (bench.folder_of(3) / MANIFEST_NAME).unlink()
    (bench.store.part("checkpoints/r2-1/train/step-0000000009-0003-0001", "rank-0")).joinpath(
        "w"
    ).write_text("half")
    assert went_on_from(bench, steps=3, attempt=2, keep=3) == "(2, 'w1')"
    assert bench.checkpoints() == ["1-3-1", "2-3-1", "3-3-2"]


def test_what_can_not_be_removed_is_told_and_no_failure(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: LocalPlace, _name: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(LocalPlace, "remove", refuse)
    messages = bench.messages(SAVES, params={"steps": 3}, keep=1)
    assert isinstance(messages[-1], Succeeded)
    lines = [m.text for m in messages if isinstance(m, LogLine)]
    assert lines[-1].startswith("old checkpoints are not removed: artifact 'checkpoints/r2-1/")
    assert bench.checkpoints() == ["1-3-1", "2-3-1", "3-3-1"]


# --- giving up ----------------------------------------------------------------------------------


def test_an_attempt_that_was_given_up_commits_nothing(bench: Bench, until: Until) -> None:
    batches, module = begin(bench, 1)
    batches.close()  # type: ignore[attr-defined]
    module.go.set()
    until(lambda: not [t for t in threading.enumerate() if t.name.startswith("r2-1/train/1")])
    assert bench.checkpoints() == []
    with pytest.raises(ArtifactError):
        bench.store.load("checkpoints/r2-1/train/step-0000000001-0003-0001")
    assert not list(Path(bench.store._base.removeprefix("file://")).rglob("w"))
