"""When the reaper buries a run, and when it does not."""

from __future__ import annotations

from orchestrator.controller.reaper import MOST_TRIES, Reaper
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunStarted
from orchestrator.messages import Lease
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
        self.reaper = Reaper(self.store, lambda _holder: self.lives, self.bury)

    def renew(self) -> None:
        self.store.renew_lease(Lease(run="run", epoch=1, at=self.clock.now()))

    def bury(self, run: Run, reason: str) -> bool:
        self.buried.append((run.header.run, reason))
        return self.opens

    def look(self, at: float) -> bool:
        self.clock.sleep(at - self.clock.now())
        return self.reaper.look()


def test_a_run_is_buried_once_when_two_looks_find_its_lease_dead() -> None:
    yard = Graveyard()
    assert yard.look(29.0)
    assert yard.look(31.0)
    assert yard.buried == []
    assert not yard.look(36.0)
    ((run, reason),) = yard.buried
    assert run == "run"
    assert "orchestrator resume run" in reason
    assert not yard.look(41.0)
    assert len(yard.buried) == 1
    assert len(yard.store.events("run")) == 1, "the run can be resumed"


def test_a_controller_that_wakes_up_with_an_old_lease_keeps_its_run() -> None:
    yard = Graveyard()
    yard.look(1000.0)
    yard.renew()
    assert yard.look(1005.0)
    assert yard.buried == []


def test_a_killed_process_is_buried_without_waiting_for_its_lease() -> None:
    yard = Graveyard()
    yard.lives = False
    yard.look(1.0)
    assert not yard.look(6.0)
    assert len(yard.buried) == 1


def test_a_silent_process_that_lives_is_left_alone() -> None:
    yard = Graveyard()
    yard.lives = True
    yard.look(1000.0)
    assert yard.look(1005.0)
    assert yard.buried == []


def test_a_burial_that_fails_is_tried_again() -> None:
    yard = Graveyard()
    yard.opens = False
    yard.look(50.0)
    assert yard.look(55.0)
    yard.opens = True
    assert not yard.look(60.0)
    assert len(yard.buried) == 2


def test_with_no_lease_there_is_nothing_left_to_do() -> None:
    yard = Graveyard()
    yard.store.drop_lease("run", 1)
    assert not yard.look(1.0)


def test_a_run_that_can_not_be_read_does_not_keep_others_from_their_burial() -> None:
    yard = Graveyard()
    yard.store.create(header(plan(stage("s")), "torn"), 0.0)
    yard.store.log["torn"] = [object()]  # type: ignore[list-item]
    yard.store.renew_lease(Lease(run="torn", epoch=1, at=0.0))
    yard.look(100.0)
    assert yard.look(105.0)
    assert [run for run, _ in yard.buried] == ["run"]
    for after in range(MOST_TRIES):
        yard.look(110.0 + after)
    assert yard.store.leases() == ()
