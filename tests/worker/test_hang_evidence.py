"""Silence is no hang by itself: the job stands at one place, its process rests, nobody is busy."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.policy import AUTO, Watch
from orchestrator.messages import Failed, Succeeded
from orchestrator.worker.activity import Activity, measured
from orchestrator.worker.attempt import StreamPace
from orchestrator.worker.watchdog import Hang, Heartbeat, Watchdog
from tests.fakes import FakeClock
from tests.worker.conftest import Bench
from tests.worker.test_watchdog import RunningClock

NOTHING = Activity()


@contextmanager
def standing() -> Iterator[threading.Thread]:
    """Run a thread that stands at one place."""
    go = threading.Event()
    thread = threading.Thread(target=go.wait, args=(20,))
    thread.start()
    yield thread
    go.set()
    thread.join()


def watched(
    thread: threading.Thread,
    hang: float | str,
    measure: Callable[[], Activity] = lambda: NOTHING,
    *,
    seconds: float = 10_000.0,
    waits: AttemptSettings = PATIENT,
    heartbeat: Heartbeat | None = None,
) -> Hang | None:
    """Watch a job that is silent from second 1 on, for so many seconds."""
    clock, heartbeat = FakeClock(1.0), heartbeat or Heartbeat(1.0)
    watchdog = Watchdog(heartbeat, clock, thread, lambda: 3, measure)
    while clock.now() < seconds:
        clock.sleep(1.0)
        found = watchdog.hang(hang, waits)  # type: ignore[arg-type]
        if found is not None:
            return found
    return None


def pulse_of(durations: list[float]) -> Heartbeat:
    """Return the pulse of a job whose steps took so long."""
    heartbeat, at = Heartbeat(1.0), 1.0 - sum(durations)
    steps = heartbeat.count()
    for step, seconds in enumerate([0.0, *durations]):
        at += seconds
        heartbeat.beat(at)
        steps.reached(step)
    return heartbeat


# --- how long ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("durations", "expected"),
    [
        ([], PATIENT.hang),
        ([1000.0] * 9, PATIENT.hang),
        ([1.0] * 50, PATIENT.hang),
        ([100.0] * 10, 2000.0),
        ([40.0] * 9 + [5000.0] * 2, 800.0),
    ],
)
def test_by_default_it_is_twenty_steps_and_never_under_ten_minutes(
    durations: list[float], expected: float
) -> None:
    heartbeat = pulse_of(durations)
    assert heartbeat.bound(AUTO) == expected
    assert heartbeat.bound(30.0) == 30.0
    assert heartbeat.bound(None) is None
    assert Watch().hang == AUTO


def test_the_run_says_how_many_steps_and_seconds_they_are() -> None:
    waits = AttemptSettings(hang=60.0, hang_steps=3)
    assert pulse_of([]).bound(AUTO, waits) == 60.0
    assert pulse_of([100.0] * 10).bound(AUTO, waits) == 300.0
    assert pulse_of([100.0] * 10).bound(30.0, waits) == 30.0


def test_a_step_that_is_named_twice_counts_once_and_each_count_by_itself() -> None:
    heartbeat = Heartbeat()
    metrics, progress = heartbeat.count(), heartbeat.count()
    for step in range(20):
        for at, count, number in (
            (0.0, metrics, step),
            (1.0, progress, 500 * step),
            (2.0, metrics, step),
        ):
            heartbeat.beat(step * 100.0 + at)
            count.reached(number)
    assert heartbeat.bound(AUTO) == 2000.0


def test_by_default_ten_minutes_of_rest_at_one_place_are_a_hang() -> None:
    with standing() as thread:
        assert watched(thread, AUTO, seconds=599.0) is None
        found = watched(thread, AUTO)
    assert found is not None
    assert found.line.startswith("no sign of life for 600 s after step 3; the job is in ")


# --- what excuses --------------------------------------------------------------------------------


def test_a_job_that_moves_does_not_hang() -> None:
    go, stop = threading.Semaphore(0), threading.Event()

    def here() -> None:
        go.acquire(timeout=20)

    def there() -> None:
        go.acquire(timeout=20)

    def job() -> None:
        while not stop.is_set():
            here()
            there()

    thread = threading.Thread(target=job)
    thread.start()
    pause = threading.Event()

    def turn() -> Activity:
        go.release()
        pause.wait(0.003)
        return NOTHING

    assert watched(thread, 30.0, turn, seconds=300.0) is None
    stop.set()
    for _ in range(3):
        go.release()
    thread.join()


@pytest.mark.parametrize(
    "done",
    [lambda n: Activity(cpu=n * 1.0), lambda n: Activity(io=n * 1_000_000)],
    ids=["computes", "writes"],
)
def test_a_process_that_works_gets_three_times_as_long_and_no_more(
    done: Callable[[int], Activity],
) -> None:
    looks = iter(range(10_000))

    with standing() as thread:
        found = watched(thread, 80.0, lambda: done(10 * next(looks)))
    assert found is not None
    assert found.line.startswith("no sign of life for 240 s after step 3")


def test_the_run_says_how_much_longer_a_process_gets_that_works() -> None:
    looks, waits = iter(range(10_000)), AttemptSettings(hang=50.0, busy_factor=5.0)
    with standing() as thread:
        found = watched(thread, AUTO, lambda: Activity(cpu=10.0 * next(looks)), waits=waits)
    assert found is not None
    assert found.line.startswith("no sign of life for 250 s after step 3")


def test_a_process_that_only_wakes_up_now_and_then_rests() -> None:
    looks = iter(range(10_000))
    with standing() as thread:
        found = watched(thread, 80.0, lambda: Activity(cpu=0.01 * (n := next(looks)), io=1000 * n))
    assert found is not None
    assert found.line.startswith("no sign of life for 80 s")


def test_what_is_busy_does_not_hang_and_begins_anew_when_it_is_done() -> None:
    heartbeat, clock = Heartbeat(1.0), FakeClock(1.0)
    with standing() as thread:
        with heartbeat.busy("compiling", clock):
            assert heartbeat.busy_with == "compiling"
            assert watched(thread, 30.0, heartbeat=heartbeat) is None
            with heartbeat.busy("saving", clock):
                assert heartbeat.busy_with == "saving"
        assert heartbeat.busy_with == ""
        heartbeat.beat(1.0)
        assert watched(thread, 30.0, heartbeat=heartbeat) is not None


# --- what is told --------------------------------------------------------------------------------


def test_the_stacks_of_all_threads_of_the_job_are_told(bench: Bench) -> None:
    bench.pace = StreamPace(batch=0.001, grace=0.0)
    bench.clock = RunningClock()
    bench.write("""
        import threading
        go, stands = threading.Event(), threading.Event()

        def loads():
            stands.set()
            go.wait(20)

        def job(ctx):
            threading.Thread(target=loads, name="loader").start()
            stands.wait(20)
            ctx.metrics({}, step=1)
            go.wait(20)
        """)
    [*_, batch] = bench.stream(bench.request(watch=Watch(hang=30.0)))
    sys.modules[f"{bench.package}.jobs"].go.set()
    outcome = batch[-1]
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.HANG
    assert "in job" in outcome.failure.detail
    assert "Thread 'loader':" in outcome.failure.detail
    assert "in loads" in outcome.failure.detail


# --- what the product waits in ------------------------------------------------------------------


@pytest.fixture
def quick(bench: Bench) -> Bench:
    """A bench on which a second passes with each look, and a hang is soon there."""
    bench.pace = StreamPace(first=0.001, batch=0.001)
    bench.clock = RunningClock()
    return bench


WAITS = {
    "a save": """
        ctx.save_checkpoint(2, slow)
        ctx.save_checkpoint(3, write)""",
    "the last save": """
        ctx.save_checkpoint(2, slow)""",
    "a save that is read back": """
        ctx.save_checkpoint(2, slow)
        ctx.saved_checkpoint(2)""",
    "a long evaluation": """
        with ctx.busy("evaluating"):
            threading.Event().wait(0.5)""",
}


@pytest.mark.parametrize("what", WAITS)
def test_who_waits_for_what_takes_long_does_not_hang(quick: Bench, what: str) -> None:
    said = quick.messages(
        f"""
    import threading
    def write(folder):
        (folder / "w").write_text("x")
    def slow(folder):
        threading.Event().wait(0.5)
        write(folder)
    def job(ctx):
        ctx.metrics({{}}, step=1){WAITS[what]}
    """,
        watch=Watch(hang=60.0),
    )
    assert isinstance(said[-1], Succeeded), said[-1]
    assert quick.clock.now() > 1100.0


# --- what a process does ------------------------------------------------------------------------


def test_what_a_process_and_its_children_do_is_measured() -> None:
    before = measured()
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    burn = (
        "import time\nend = time.process_time() + 0.1\nwhile time.process_time() < end: pass\n"
        "print('x', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", burn], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    read, write = os.pipe()
    os.write(write, b"x" * 60_000)
    os.read(read, 60_000)
    found = measured()
    child.communicate(b"\n")
    os.close(read)
    os.close(write)
    assert found.cpu - before.cpu >= 0.18
    assert found.io - before.io >= 120_000
    assert not found.rested_since(before, 1.0)
    assert found.rested_since(found, 1.0)
