"""A job without a sign of life after its first step hangs; one that is slow to begin does not."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Watch
from orchestrator.messages import Alive, Failed, LogLine, Message, Succeeded
from orchestrator.worker.attempt import StreamPace
from orchestrator.worker.watchdog import Heartbeat, Watchdog
from tests.fakes import FakeClock
from tests.worker.conftest import Bench

FOREVER = """
import threading
go = threading.Event()

def job(ctx):
    ctx.log("begun")
    if ctx.attempt == 1:
        ctx.metrics({"loss": 1.0}, step=40)
    wait_for_data()

def wait_for_data():
    go.wait(20)
"""


@dataclass
class RunningClock:
    """A clock that runs a second each time that somebody looks at it."""

    at: float = 1000.0

    def now(self) -> float:
        self.at += 1.0
        return self.at

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        raise AssertionError


@pytest.fixture
def running(bench: Bench) -> Iterator[Bench]:
    bench.pace = StreamPace(batch=0.001, grace=0.0)
    bench.clock = RunningClock()
    bench.write(FOREVER)
    yield bench
    sys.modules[f"{bench.package}.jobs"].go.set()


def heard(batches: Iterator[Sequence[Message]], most: int = 200) -> list[Message]:
    return [message for batch, _ in zip(batches, range(most), strict=False) for message in batch]


def test_a_job_that_gives_no_sign_hangs_and_the_failure_says_where_it_is(running: Bench) -> None:
    said = heard(running.stream(running.request(watch=Watch(hang=30.0))))

    outcome = said[-1]
    assert isinstance(outcome, Failed)
    failure = outcome.failure
    assert (failure.kind, failure.rank, failure.step) == (FailureKind.HANG, 0, 40)
    assert failure.evidence.startswith("no sign of life for 30 s after step 40; the job is in ")
    first, *_ = failure.detail.splitlines()
    assert first.endswith('jobs.py", line 9, in job')
    assert "in wait_for_data" in failure.detail
    assert outcome.at is not None
    assert outcome.at < 1030.0  # when the last sign was, not when it was missed
    assert Alive(0, 40) in said


@pytest.mark.parametrize(("attempt", "hang"), [(2, 30.0), (1, None)])
def test_before_the_first_step_and_without_a_limit_nothing_hangs(
    running: Bench, attempt: int, hang: float | None
) -> None:
    said = heard(running.stream(running.request(attempt=attempt, watch=Watch(hang=hang))))

    assert {type(message) for message in said} >= {LogLine, Alive}
    assert not any(isinstance(message, Failed) for message in said)


def test_what_comes_after_the_job_is_not_watched(bench: Bench) -> None:
    bench.pace = StreamPace(batch=0.001)
    bench.clock = RunningClock()
    bench.write(FOREVER)
    bench.process_group.seconds_to_close = 0.05
    watch = Watch(hang=1.0)
    bench.write("def job(ctx): ctx.metrics({}, step=1)")

    assert heard(bench.stream(bench.request(watch=watch)))[-1] == Succeeded(None)


def test_who_was_stopped_together_with_the_job_does_not_call_it_hung() -> None:
    clock, heartbeat = FakeClock(100.0), Heartbeat()
    watchdog = Watchdog(heartbeat, clock, threading.current_thread(), lambda: 3)
    heartbeat.beat(100.0)
    clock.sleep(3600.0)

    assert watchdog.hang(30.0) is None
    for _ in range(7):
        clock.sleep(4.5)
        found = watchdog.hang(30.0)
    assert found is not None
    assert found.at == 3700.0


def test_a_thread_that_has_ended_does_not_hang() -> None:
    clock, heartbeat = FakeClock(100.0), Heartbeat(100.0)
    thread = threading.Thread(target=print)
    watchdog = Watchdog(heartbeat, clock, thread, lambda: 3)
    clock.sleep(4.0)

    assert watchdog.hang(1.0) is None


def test_a_sign_of_life_tells_what_the_job_is_busy_with_and_for_how_long() -> None:
    clock, heartbeat = FakeClock(100.0), Heartbeat()
    watchdog = Watchdog(heartbeat, clock, threading.current_thread(), lambda: 7)
    with heartbeat.busy("saving", clock):
        clock.sleep(12.0)
        (told,) = watchdog.alive(0)
        assert (told.busy, told.seconds) == ("saving", 12.0)
    clock.sleep(1.0)
    assert watchdog.alive(0) == [Alive(0, 7)]


def test_a_sign_of_life_is_due_every_second() -> None:
    clock = FakeClock(100.0)
    watchdog = Watchdog(Heartbeat(), clock, threading.current_thread(), lambda: None)

    assert watchdog.alive(2) == []
    clock.sleep(1.0)
    assert watchdog.alive(2) == [Alive(2, None)]
    assert watchdog.alive(2) == []
