"""What a job held is let go after its outcome is told, and how a worker ends that is asked to."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from types import ModuleType

from orchestrator.adapters.clock import SystemClock
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Watch
from orchestrator.messages import Failed, Succeeded
from orchestrator.worker.termination import asked_to_end, told_by
from tests.worker.conftest import Bench


def test_a_failure_is_told_before_what_the_job_held_is_let_go(bench: Bench) -> None:
    """Links of a gang may wait for the others when they are let go."""
    bench.write("""
        let_go = []
        class Links:
            def __del__(self):
                let_go.append(self)
        def job(ctx):
            links = Links()
            raise RuntimeError("a peer is gone")
        """)
    batches = bench.stream(bench.request())
    [*_, told] = next(batches)
    assert isinstance(told, Failed)
    assert sys.modules[f"{bench.package}.jobs"].let_go == []
    assert list(batches) == []


SAVES = """
    import threading
    writing, write_on, after = threading.Event(), threading.Event(), threading.Event()

    def job(ctx):
        def write(folder):
            writing.set()
            assert write_on.wait(10)
            (folder / "w").write_text("x")
        ctx.save_checkpoint(1, write)
        ctx.log("saves")
        while True:
            ctx.go_on()
            after.wait(0.01)
    """


def begun(bench: Bench, rank: int = 0, **changes: object) -> tuple[Iterator[object], ModuleType]:
    """Run a worker up to where it saves; return what it says, and its module."""
    batches = bench.stream(bench.request(**changes), rank)
    next(batches)
    jobs = sys.modules[f"{bench.package}.jobs"]
    assert jobs.writing.wait(10)
    return batches, jobs


def ended(batches: Iterator[object]) -> threading.Thread:
    """End a worker, as its cluster does that asks for it, in a thread."""
    thread = threading.Thread(target=batches.close)  # type: ignore[attr-defined]
    thread.start()
    return thread


def test_a_checkpoint_that_is_being_saved_when_the_worker_shall_end_is_kept(bench: Bench) -> None:
    bench.write(SAVES)
    batches, jobs = begun(bench)
    ending = ended(batches)
    jobs.write_on.set()
    ending.join(10)
    assert bench.checkpoints() == ["1-3-1"]
    bench.store.load(f"checkpoints/r2-1/train/{bench.folder_of(1).name}")


def test_one_that_takes_too_long_is_given_up_with_all_that_lies_there(
    bench: Bench, until: Callable[[Callable[[], bool]], None]
) -> None:
    bench.write(SAVES)
    batches, jobs = begun(bench, kill_after=0.0)
    ended(batches).join(10)
    jobs.write_on.set()
    until(lambda: bench.checkpoints() == [])


def test_a_worker_that_is_asked_to_end_leaves_by_itself(bench: Bench) -> None:
    bench.write("def job(ctx):\n    while True:\n        ctx.log('x')\n")
    with told_by(lambda: True):
        said = [m for batch in bench.stream(bench.request()) for m in batch]
    assert not [m for m in said if isinstance(m, Succeeded | Failed)]
    assert not asked_to_end()


def test_a_hang_is_told_once_the_checkpoint_is_saved_that_was_handed_over(bench: Bench) -> None:
    bench.write("""
        import threading
        def job(ctx):
            def write(folder):
                threading.Event().wait(3.0)
                (folder / "w").write_text("x")
            ctx.save_checkpoint(1, write)
            ctx.metrics({"loss": 1.0}, step=1)
            threading.Event().wait(6.0)
        """)
    bench.clock = SystemClock()
    for batch in bench.stream(bench.request(watch=Watch(hang=0.5))):
        if batch and isinstance(batch[-1], Failed):
            assert batch[-1].failure.kind is FailureKind.HANG
            assert bench.sealed() == ["1-3-1"]
            return
    raise AssertionError


def test_a_failure_is_of_when_the_job_ended_and_not_of_when_it_had_saved(bench: Bench) -> None:
    """That of another worker, which had nothing to save, would else seem to have come first."""
    bench.write("""
        import time
        saved_at = []
        def job(ctx):
            with ctx.saving_last():
                time.sleep(0.05)
                saved_at.append(time.time())
            raise RuntimeError("it broke before")
        """)
    bench.clock = SystemClock()
    told = [message for batch in bench.stream(bench.request()) for message in batch][-1]
    assert isinstance(told, Failed)
    assert told.at < sys.modules[f"{bench.package}.jobs"].saved_at[0]
