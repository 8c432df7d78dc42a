"""An attempt that was followed by another ends, though it saves nothing and nobody can end it."""

from __future__ import annotations

import platform
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from queue import Empty, Queue

import pytest

from orchestrator.core.errors import StaleAttemptError, StorageError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.checkpoint_names import Token
from orchestrator.core.settings import AttemptSettings
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, Message, Succeeded
from orchestrator.worker.attempt import StreamPace
from orchestrator.worker.fence_watch import FenceWatch
from orchestrator.worker.fencing import Fence
from tests.fakes import FakeClock
from tests.interposed import Interposed
from tests.worker.conftest import Bench
from tests.worker.test_watchdog import RunningClock

CLAIM = "checkpoints/r2-1/train/claims/0003-0002-anew"
TRAINS = """
    import threading

    ended = threading.Event()

    def trains(ctx, most=3000):
        try:
            if ctx.rank == 0:
                ctx.latest_checkpoint()
            else:
                ctx.save_checkpoint(1, lambda folder: None)
                ctx.finish_saving()
            work(ctx, most)
        finally:
            ended.set()

    def knows_no_checkpoints(ctx):
        work(ctx)

    def work(ctx, most=3000):
        for _ in range(most):
            ctx.log("works")
            threading.Event().wait(0.001)
"""


@dataclass
class Listings:
    """Counts the listings of claims, and has something happen before each."""

    before: Callable[[], object] = lambda: None
    count: int = 0
    threads: set[str] = field(default_factory=set)

    def __call__(self, prefix: str) -> None:
        if prefix.endswith("claims"):
            self.count += 1
            self.threads.add(threading.current_thread().name)
            self.before()


@pytest.fixture
def fast(bench: Bench) -> Bench:
    """Run through an hour in a moment."""
    bench.pace = StreamPace(first=0.001, batch=0.001)
    bench.clock = RunningClock()
    bench.write(TRAINS)
    return bench


def run(bench: Bench, rank: int, job: str = "trains", size: int = 2) -> list[Message]:
    """Run worker `rank` of attempt 1, while attempt 2 claims the checkpoints."""
    needs = Needs(workers=size)
    said: list[Message] = []
    for batch in bench.stream(bench.request(job, needs=needs, watch=Watch(hang=None)), rank):
        if LogLine(rank, "works") in batch and LogLine(rank, "works") not in said:
            bench.store.mark(CLAIM, "")
        said.extend(batch)
    return said


@pytest.mark.parametrize("rank", [0, 1])
def test_each_worker_ends_as_stale_with_a_line_and_its_job_does_too(
    fast: Bench, rank: int
) -> None:
    [*_, line, outcome] = run(fast, rank)
    why = (
        "attempt 1 of epoch 3 must not save any more: attempt 2 of epoch 3 has claimed "
        "'checkpoints/r2-1/train'"
    )
    assert isinstance(outcome, Failed)
    assert (outcome.failure.kind, outcome.failure.rank) == (FailureKind.CANCELLED, rank)
    assert outcome.failure.evidence == why
    assert line == LogLine(rank, f"worker {rank} on {platform.node()!r} ends: {why}")
    jobs = __import__(f"{fast.package}.jobs", fromlist=["jobs"])
    assert jobs.ended.wait(10)


def test_where_nobody_reads_what_it_says_the_process_ends_once_it_was_replaced(
    bench: Bench, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.write(TRAINS)
    words: Queue[Sequence[Message]] = Queue()
    bench.clock, bench.end_process = RunningClock(), words.put
    waits = replace(bench.request().waits, fence=0.1)
    request = bench.request("trains", params={"most": 60_000}, watch=Watch(hang=None), waits=waits)
    stream = bench.stream(request)
    next(batch for batch in stream if LogLine(0, "works") in batch)
    with pytest.raises(Empty):  # nobody has replaced it
        words.get(timeout=1.5)
    bench.store.mark(CLAIM, "")
    (last,) = words.get(timeout=20)
    stream.close()  # type: ignore[attr-defined]
    assert isinstance(last, Failed)
    assert last.failure.kind is FailureKind.CANCELLED
    assert "has claimed 'checkpoints/r2-1/train'" in last.failure.evidence
    assert last.failure.evidence in capfd.readouterr().err


def test_of_a_large_gang_every_worker_ends_too(fast: Bench) -> None:
    outcome = run(fast, 199, size=200)[-1]
    assert isinstance(outcome, Failed)
    assert (outcome.failure.kind, outcome.failure.rank) == (FailureKind.CANCELLED, 199)


def test_a_job_without_checkpoints_asks_nothing_of_the_storage(fast: Bench) -> None:
    listings = Listings()
    fast.store = Interposed(fast.store, names=listings)  # type: ignore[assignment]
    assert isinstance(run(fast, 0, "knows_no_checkpoints")[-1], Succeeded)
    assert listings.count == 0


# --- when it looks ------------------------------------------------------------------------------


def watch_of(bench: Bench, listings: Listings, clock: FakeClock) -> FenceWatch:
    store = Interposed(bench.store, names=listings)
    fence = Fence(store, "checkpoints/r2-1/train", Token(3, 1))  # type: ignore[arg-type]
    return FenceWatch(lambda: fence, clock, AttemptSettings().fence)


def minutes(watch: FenceWatch, clock: FakeClock, count: int) -> list[StaleAttemptError]:
    """Ask each second; return what was seen."""
    seen = []
    for _ in range(60 * count):
        clock.sleep(1.0)
        for _ in range(2):
            seen.append(watch.stale())
            if watch._check is not None:
                watch._check.wait(0.2)
    return [error for error in seen if error is not None]


def test_it_looks_once_a_minute_with_one_listing_and_not_in_the_thread_that_asks(
    bench: Bench,
) -> None:
    listings, clock = Listings(), FakeClock(10_000.0)
    watch = watch_of(bench, listings, clock)
    assert minutes(watch, clock, 3) == []
    assert listings.count == 3
    assert listings.threads == {"looks for a newer attempt"}
    clock.step(-3600.0)
    bench.store.mark(CLAIM, "")
    assert len(minutes(watch, clock, 1)) == 1


def looks(bench: Bench, workers: int, seconds: int) -> list[list[int]]:
    """Return in which seconds each of so many workers of a gang looks at its fence."""
    listings, clock = Listings(), FakeClock(10_000.0)
    store = Interposed(bench.store, names=listings)
    fence = Fence(store, "checkpoints/r2-1/train", Token(3, 1))  # type: ignore[arg-type]
    watches = [
        FenceWatch(lambda: fence, clock, 60.0, rank=rank, workers=workers)
        for rank in range(workers)
    ]
    seen: list[list[int]] = [[] for _ in watches]
    for second in range(1, seconds + 1):
        clock.sleep(1.0)
        for rank, watch in enumerate(watches):
            before = watch._check
            watch.stale()
            if watch._check not in {None, before}:
                seen[rank].append(second)
                assert watch._check is not None
                assert watch._check.wait(10)
                watch.stale()
    return seen


@pytest.mark.parametrize(("workers", "pause"), [(1, 60), (4, 60), (64, 60), (128, 120)])
def test_each_worker_looks_and_all_of_them_no_oftener_than_the_storage_bears(
    bench: Bench, workers: int, pause: int
) -> None:
    seen = looks(bench, workers, 2 * pause)
    assert all(len(moments) == 2 and moments[1] - moments[0] == pause for moments in seen)
    firsts = [moments[0] for moments in seen]
    assert firsts == sorted(firsts)
    assert max(firsts) <= pause
    most = max(firsts.count(second) for second in firsts)
    assert most <= 2, "they take turns"


def test_a_storage_that_is_away_ends_nobody_and_is_asked_again(bench: Bench) -> None:
    def away() -> None:
        raise StorageError("the storage is away")

    listings, clock = Listings(away), FakeClock()
    watch = watch_of(bench, listings, clock)
    bench.store.mark(CLAIM, "")
    assert minutes(watch, clock, 2) == []
    assert listings.count == 2
    listings.before = lambda: None
    assert len(minutes(watch, clock, 1)) == 1


def test_a_storage_that_hangs_holds_nobody_up_and_is_asked_once(bench: Bench) -> None:
    answers = threading.Event()
    listings, clock = Listings(lambda: answers.wait(20)), FakeClock()
    watch = watch_of(bench, listings, clock)
    bench.store.mark(CLAIM, "")
    for _ in range(300):
        clock.sleep(1.0)
        assert watch.stale() is None
    answers.set()
    assert watch._check is not None
    assert watch._check.wait(10)
    assert listings.count == 1
    assert isinstance(watch.stale(), StaleAttemptError)
