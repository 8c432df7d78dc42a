"""One worker and its checkpoints: what it goes on from, and what it saves."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.core.errors import ArtifactError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Adjust
from orchestrator.messages import Points, Resumed, Saved, Succeeded
from tests.interposed import Interposed
from tests.worker.conftest import Bench
from tests.worker.saves import SAVES, begin, went_on_from

Until = Callable[[Callable[[], bool]], None]

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
    assert went_on_from(bench, steps=0, attempt=2, adjust=Adjust(before=3)) == "(2, 'w1')"
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


def test_a_store_that_is_full_is_one_line(bench: Bench) -> None:
    def full(name: str, *_: object) -> None:
        if "step-0000000002" in name:
            raise ArtifactError(f"artifact {name!r}: No space left on device; free some space")

    bench.store = Interposed(bench.store, seal=full)  # type: ignore[assignment]
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


def test_a_failure_is_of_the_furthest_step_though_an_earlier_one_is_saved(bench: Bench) -> None:
    failure = bench.failure("""
        def job(ctx):
            ctx.metrics({"loss": 1.0}, step=5)
            ctx.save_checkpoint(4, lambda folder: (folder / "w").write_text("x"))
            raise RuntimeError("it broke")
        """)
    assert failure.step == 5


# --- leaving ------------------------------------------------------------------------------------

LEAVES = """
    def job(ctx):
        for step in (1, 2, 3):
            ctx.save_checkpoint(step, lambda f: (f / "w").write_text("x"))
            ctx.checkpoints.finish()
            try:
                ctx.progress(step, 3)
            except Exception:
                pass
    """


def test_a_job_leaves_after_its_next_checkpoint_when_it_is_asked_to(bench: Bench) -> None:
    bench.store.mark("checkpoints/r2-1/train/leave-1", "pool 'nvidia' is being emptied")
    failure = bench.failure(LEAVES)
    assert failure.kind is FailureKind.DRAINED
    assert failure.evidence == (
        "pool 'nvidia' is being emptied; left after the checkpoint of step 1"
    )
    assert (failure.step, failure.pool, failure.detail) == (1, "nvidia", "")
    assert bench.checkpoints() == ["1-3-1"]


def test_an_attempt_is_not_asked_by_the_mark_of_another(bench: Bench) -> None:
    bench.store.mark("checkpoints/r2-1/train/leave-1", "pool 'nvidia' is being emptied")
    bench.result(LEAVES, attempt=2)


def test_a_job_that_is_done_before_it_can_leave_has_succeeded(bench: Bench) -> None:
    bench.store.mark("checkpoints/r2-1/train/leave-1", "pool 'nvidia' is being emptied")
    bench.result("def job(ctx): ctx.save_checkpoint(1, lambda f: (f / 'w').write_text('x'))")


# --- an earlier run -----------------------------------------------------------------------------


def test_a_stage_without_checkpoints_goes_on_from_those_of_the_run_that_it_continues(
    bench: Bench,
) -> None:
    went_on_from(bench, steps=3, attempt=1)
    new = {"run": "r2-2", "continues": "checkpoints/r2-1/train"}
    messages = bench.messages(SAVES, params={"steps": 5}, **new)
    said = [m for m in messages if isinstance(m, Resumed | Saved)]
    assert said == [Resumed(3), Saved(4), Saved(5)]
    assert bench.checkpoints(run="r2-1") == ["1-3-1", "2-3-1", "3-3-1"], "left as they were"
    again = bench.messages(SAVES, params={"steps": 6}, attempt=2, **new)
    assert [m for m in again if isinstance(m, Resumed)] == [Resumed(5)], "its own go first"


def test_an_attempt_that_shall_go_back_does_not_go_on_from_an_earlier_run(bench: Bench) -> None:
    went_on_from(bench, steps=3, attempt=1)
    new = {"run": "r2-2", "continues": "checkpoints/r2-1/train"}
    messages = bench.messages(SAVES, params={"steps": 1}, adjust=Adjust(before=2), **new)
    assert not [m for m in messages if isinstance(m, Resumed)]
