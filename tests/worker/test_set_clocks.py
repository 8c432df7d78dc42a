"""The time of day of a node may be set: no interval in a worker is measured by it."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from orchestrator.core.settings import AttemptSettings
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Alive, Points, Saved, Succeeded
from orchestrator.worker.activity import Activity
from orchestrator.worker.message_queue import MessageQueue
from orchestrator.worker.rank_membership import RankMembership, StuckError
from orchestrator.worker.runtime import AttemptRuntime
from orchestrator.worker.watchdog import Heartbeat, Watchdog
from tests.fakes import FakeClock
from tests.worker.conftest import Bench

HOUR = 3600.0
SAVES = """
    def job(ctx):
        ctx.latest_checkpoint()
        for step in (1, 2):
            ctx.save_checkpoint(step, lambda folder: (folder / "w").write_text("x"))

    def fails(ctx):
        ctx.save_checkpoint(1, lambda folder: (folder / "w").write_text("x"))
        if ctx.rank == 1:
            raise ValueError("bad")
"""
both_ways = pytest.mark.parametrize("set_by", [-HOUR, HOUR])


class JumpingClock:
    """Real time, but for a time of day that is an hour off at every other look."""

    def __init__(self) -> None:
        self._off = itertools.cycle([0.0, HOUR, 0.0, -HOUR])

    def now(self) -> float:
        return 1_796_040_000.0 + time.monotonic() + next(self._off)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)


@both_ways
def test_signs_of_life_go_on_and_tell_the_time_that_it_is_now(set_by: float) -> None:
    clock, heartbeat = FakeClock(10_000.0), Heartbeat()
    watchdog = Watchdog(heartbeat, clock, threading.current_thread(), lambda: 7)
    with heartbeat.busy("saving", clock):
        clock.step(set_by)
        clock.sleep(1.0)
        (sign,) = watchdog.alive(0)
    assert sign == Alive(0, 7, busy="saving")
    assert (sign.at, sign.seconds) == (10_001.0 + set_by, 1.0)


@both_ways
def test_a_hang_is_neither_invented_nor_hidden(set_by: float) -> None:
    stands = threading.Event()
    thread = threading.Thread(target=stands.wait, args=(20,))
    thread.start()
    clock, heartbeat = FakeClock(10_000.0), Heartbeat(10_000.0)
    watchdog = Watchdog(heartbeat, clock, thread, lambda: 3, Activity)
    clock.step(set_by)
    hangs = []
    for _ in range(32):
        clock.sleep(1.0)
        hangs.append(watchdog.hang(30.0))
    stands.set()
    thread.join()
    assert hangs[:30] == [None] * 30
    assert hangs[30] is not None
    assert hangs[30].at == 10_000.0 + set_by


def member_of(bench: Bench, clock: FakeClock) -> RankMembership:
    runtime = AttemptRuntime(bench.store, clock, MessageQueue(), threading.Event())
    request = bench.request(needs=Needs(workers=2))
    return RankMembership(request=request, rank=0, world_size=2, meta={}, runtime=runtime)


@both_ways
def test_who_waits_for_others_waits_as_long_as_it_is_patient(bench: Bench, set_by: float) -> None:
    clock = FakeClock(10_000.0)
    clock.at(10_005.0, lambda: clock.step(set_by))
    with pytest.raises(StuckError, match="nothing of it has moved for 20 s"):
        member_of(bench, clock).wait_for(lambda: None, "it is missing", patience=20.0)
    assert 20.0 < clock.monotonic() - 10_000.0 < 22.0


@both_ways
def test_what_comes_in_time_is_taken(bench: Bench, set_by: float) -> None:
    clock = FakeClock(10_000.0)
    clock.at(10_005.0, lambda: clock.step(set_by))

    def look() -> str | None:
        return "there" if clock.monotonic() > 10_015.0 else None

    assert member_of(bench, clock).wait_for(look, "it is missing", patience=20.0) == "there"


def test_checkpoints_are_saved_and_their_seconds_are_those_that_passed(bench: Bench) -> None:
    bench.clock = JumpingClock()
    bench.write(SAVES)
    said = bench.together(bench.request(needs=Needs(workers=2)))
    assert [type(messages[-1]) for messages in said] == [Succeeded, Succeeded]
    assert [m for m in said[0] if isinstance(m, Saved)] == [Saved(1), Saved(2)]
    points = [m for m in said[0] if isinstance(m, Points)]
    assert len(points) == 2
    for point in points:
        assert all(0.0 <= seconds < 60.0 for seconds in point.values.values()), point


def test_a_worker_that_fails_waits_for_the_checkpoint_some_seconds_and_no_hour(
    bench: Bench,
) -> None:
    bench.clock = JumpingClock()
    bench.write(SAVES)
    began = time.monotonic()
    waits = AttemptSettings(last_save=0.5)
    asked = bench.request("fails", needs=Needs(workers=2), waits=waits)
    failure = bench.failure_of(asked, rank=1)
    assert failure.evidence == "ValueError: bad"
    assert 0.5 <= time.monotonic() - began < 10.0
