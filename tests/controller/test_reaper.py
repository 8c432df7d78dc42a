"""When the reaper buries a run, and when it does not."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.controller.reaper import MOST_TRIES, SECONDS_FOR_OTHERS, Declined, Reaper
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import CancelRequested, RunCancelled, RunStarted, StageCancelled
from orchestrator.messages import Lease
from orchestrator.ports import Stored
from tests.build import header, plan, stage
from tests.fakes import FakeClock, MemoryStore


class Graveyard:
    """A store with one run whose controller was last seen at 0, and who was buried why."""

    def __init__(self) -> None:
        self.store, self.clock = MemoryStore(), FakeClock()
        self.store.now = self.clock.now
        self.buried: list[tuple[str, str]] = []
        self.opens = True
        self.lives: bool | None = None
        self.store.create(header(plan(stage("s"))), 0.0)
        self.store.append("run", 1, (RunStarted(1),), 0.0)
        self.renew()
        self.declined: Declined | None = Declined("it may not", others=False)
        self.taken: list[str] = []
        self.reaper = Reaper(self.store, lambda _holder: self.lives, self.bury, self.take_over)

    def renew(self) -> None:
        self.store.renew_lease(Lease(run="run", epoch=1, at=self.clock.now()))

    def bury(self, run: Run, reason: str) -> bool:
        self.buried.append((run.header.run, reason))
        return self.opens

    def take_over(self, run: Run, events: Sequence[Stored]) -> Declined | None:
        assert len(events) == run.seq
        self.taken.append(run.header.run)
        return self.declined

    def reap(self, at: float) -> bool:
        self.clock.sleep(at - self.clock.now())
        return self.reaper.reap()


def test_a_run_is_buried_once_when_two_looks_find_its_lease_dead() -> None:
    yard = Graveyard()
    assert yard.reap(29.0)
    assert yard.reap(31.0)
    assert yard.buried == []
    assert not yard.reap(36.0)
    ((run, reason),) = yard.buried
    assert run == "run"
    assert "orchestrator resume run" in reason
    assert not yard.reap(41.0)
    assert len(yard.buried) == 1
    assert len(yard.store.events("run")) == 1, "the run can be resumed"


def test_a_controller_that_wakes_up_with_an_old_lease_keeps_its_run() -> None:
    yard = Graveyard()
    yard.reap(1000.0)
    yard.renew()
    assert yard.reap(1005.0)
    assert yard.buried == []


def test_a_killed_process_is_buried_without_waiting_for_its_lease() -> None:
    yard = Graveyard()
    yard.lives = False
    yard.reap(1.0)
    assert not yard.reap(6.0)
    assert len(yard.buried) == 1


def test_a_silent_process_that_lives_is_left_alone() -> None:
    yard = Graveyard()
    yard.lives = True
    yard.reap(1000.0)
    assert yard.reap(1005.0)
    assert yard.buried == []


def test_a_burial_that_fails_is_tried_again() -> None:
    yard = Graveyard()
    yard.opens = False
    yard.reap(50.0)
    assert yard.reap(55.0)
    yard.opens = True
    assert not yard.reap(60.0)
    assert len(yard.buried) == 2


def test_with_no_lease_there_is_nothing_left_to_do() -> None:
    yard = Graveyard()
    yard.store.drop_lease("run", 1)
    assert not yard.reap(1.0)


def test_a_run_that_can_not_be_read_does_not_keep_others_from_their_burial() -> None:
    yard = Graveyard()
    yard.store.create(header(plan(stage("s")), "torn"), 0.0)
    yard.store.log["torn"] = [object()]  # type: ignore[list-item]
    yard.store.renew_lease(Lease(run="torn", epoch=1, at=0.0))
    yard.reap(100.0)
    assert yard.reap(105.0)
    assert [run for run, _ in yard.buried] == ["run"]
    for after in range(MOST_TRIES):
        yard.reap(110.0 + after)
    assert yard.store.leases() == ()


def test_a_run_that_is_taken_over_is_not_buried_and_its_next_controller_has_the_lease() -> None:
    yard = Graveyard()
    yard.declined = None
    yard.reap(31.0)
    assert yard.reap(36.0)
    assert yard.taken == ["run"]
    yard.store.append("run", 2, (RunStarted(2, 0.0, "the reaper of h1"),), 40.0)
    yard.store.renew_lease(Lease(run="run", epoch=2, at=40.0))
    assert yard.reap(41.0)
    assert yard.reap(46.0)
    assert (yard.taken, yard.buried) == (["run"], [])


def test_a_run_that_does_not_go_on_by_itself_is_buried_with_the_reason() -> None:
    yard = Graveyard()
    yard.reap(31.0)
    assert not yard.reap(36.0)
    ((_, reason),) = yard.buried
    assert reason.endswith("; it may not; orchestrator resume run goes on")


def test_a_run_that_another_reaper_might_take_over_is_left_to_it_for_a_while() -> None:
    yard = Graveyard()
    yard.declined = Declined("no way to its cluster", others=True)
    yard.reap(31.0)
    for at in range(36, int(SECONDS_FOR_OTHERS), 5):
        assert yard.reap(float(at))
    assert yard.buried == []
    assert not yard.reap(SECONDS_FOR_OTHERS + 1.0)
    assert len(yard.buried) == 1


def test_a_run_waits_as_long_as_who_declines_it_says_for_what_may_come_back() -> None:
    yard = Graveyard()
    yard.declined = Declined("its head is away", others=True, patience=300.0)
    yard.reap(31.0)
    assert yard.reap(SECONDS_FOR_OTHERS + 1.0)
    assert yard.reap(299.0)
    assert yard.buried == []
    assert not yard.reap(301.0)


def test_a_run_that_was_left_in_order_is_nobodys_to_take_over() -> None:
    yard = Graveyard()
    yard.declined = None
    yard.store.renew_lease(Lease(run="run", epoch=1, at=-1.0))
    yard.reap(31.0)
    assert not yard.reap(36.0)
    assert yard.taken == []
    ((_, reason),) = yard.buried
    assert reason.startswith("its controller has stopped before the end")


def test_a_run_that_has_ended_is_not_taken_over() -> None:
    yard = Graveyard()
    yard.declined = None
    ends = (CancelRequested("Ctrl-C"), StageCancelled("s"), RunCancelled())
    yard.store.append("run", 2, ends, 1.0)
    yard.reap(31.0)
    assert not yard.reap(36.0)
    assert yard.taken == []
    assert len(yard.buried) == 1, "what could not be written of it is written now"
