"""What fails before a controller has a run ends the run, with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.hydra_config import compose
from orchestrator.core.errors import ClusterError, StoreError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunFailed, RunStarted, StageState
from orchestrator.messages import Lease
from orchestrator.service.driving.beginning import (
    HandOverPatience,
    begun,
    hand_over,
    hand_over_patience,
    never_began,
)
from tests.build import header, plan, stage
from tests.fakes import FakeClock

PATIENCE = HandOverPatience(begin=30.0, run=300.0)  # seconds
HEADER = header(plan(stage("s"), stage("t", "s")))


@pytest.fixture
def store(tmp_path: Path) -> SqlDatabase:
    made = SqlDatabase(f"sqlite:///{tmp_path}/events.db")
    made.create(HEADER, 0.0)
    return made


def stored(store: SqlDatabase) -> Run:
    return fold(HEADER, ((item.at, item.event) for item in store.events("run")))


@pytest.mark.parametrize(
    "error", [ClusterError("the job server refuses"), OSError(36, "too long")]
)
def test_an_error_ends_the_run_with_its_reason(store: SqlDatabase, error: Exception) -> None:
    with pytest.raises(type(error)), begun(store, HEADER):
        raise error
    run = stored(store)
    assert run.state == "failed"
    assert run.reason in {
        "it never began: ClusterError: the job server refuses",
        "it never began: OSError: too long",
    }


def test_an_interrupt_cancels_it(store: SqlDatabase) -> None:
    with pytest.raises(KeyboardInterrupt), begun(store, HEADER):
        raise KeyboardInterrupt
    run = stored(store)
    assert (run.state, run.reason) == ("cancelled", "interrupted before it began")
    assert {one.state for one in run.stages.values()} == {StageState.CANCELLED}


def test_a_run_that_has_begun_is_left_to_its_controller(store: SqlDatabase) -> None:
    store.append("run", 1, (RunStarted(1),), 0.0)
    with pytest.raises(StoreError), begun(store, HEADER):
        raise StoreError("away")
    assert stored(store).state == "running"
    assert not never_began(store, HEADER, "late")


class FakeJob:
    """A job that is in each status for ten seconds, and then does `act`."""

    def __init__(self, clock: FakeClock, *statuses: str) -> None:
        self.clock, self.statuses = clock, statuses
        self.stopped = False

    def status(self) -> str:
        return self.statuses[min(int(self.clock.monotonic() // 10), len(self.statuses) - 1)]

    def last_words(self) -> str:
        return "no module named 'orchestrator'"

    def stop(self) -> None:
        self.stopped = True


def taken_up(store: SqlDatabase, *, started: float, leased: float) -> FakeClock:
    """Hand a run over to a job that starts and leases it then, and is not stopped."""
    clock = FakeClock()
    job = FakeJob(clock, "PENDING", "RUNNING")
    clock.at(started, lambda: store.append("run", 1, (RunStarted(1),), 0.0))
    clock.at(leased, lambda: store.renew_lease(Lease(run="run", epoch=1, at=leased)))
    hand_over(job, store, stored(store), clock, PATIENCE)
    assert not job.stopped
    return clock


def test_a_job_that_has_the_run_goes_on_by_itself(store: SqlDatabase) -> None:
    clock = taken_up(store, started=34.0, leased=36.0)
    assert clock.monotonic() > 36.0, "its lease is waited for"


def test_a_job_that_runs_may_wait_for_the_cluster_and_for_its_nodes_before_it_has_the_run(
    store: SqlDatabase,
) -> None:
    assert taken_up(store, started=250.0, leased=250.0).monotonic() > 250.0


def test_the_patience_with_a_job_that_runs_has_room_for_all_that_it_may_wait_for_itself() -> None:
    settings = compose(
        [
            "pipeline=noop",
            "cluster.hand_over=1",
            "cluster.patience=20",
            "attempts.storage=5",
            "storage.answer=300",
        ]
    )
    assert hand_over_patience(settings) == HandOverPatience(begin=1.0, run=626.0)


def test_a_run_that_its_job_has_ended_already_is_handed_over_too(store: SqlDatabase) -> None:
    clock = FakeClock()
    clock.at(5.0, lambda: store.append("run", 1, (RunStarted(1), RunFailed("no")), 0.0))
    hand_over(FakeJob(clock, "RUNNING"), store, stored(store), clock, PATIENCE)
    assert clock.monotonic() < 10.0


@pytest.mark.parametrize(
    ("statuses", "told", "seconds"),
    [
        (("PENDING", "FAILED"), "has ended: FAILED", 11.0),
        (("PENDING",), "has not begun: PENDING", 32.0),
        (("PENDING", "RUNNING"), "has not begun: RUNNING", 312.0),
        (("",), "has not begun: unknown", 32.0),
    ],
)
def test_a_job_that_does_not_come_to_have_the_run_is_stopped_and_its_log_told(
    store: SqlDatabase, statuses: tuple[str, ...], told: str, seconds: float
) -> None:
    clock = FakeClock()
    job = FakeJob(clock, *statuses)
    with pytest.raises(ClusterError, match=f"{told}; it said: no module"), begun(store, HEADER):
        hand_over(job, store, stored(store), clock, PATIENCE)
    assert job.stopped
    assert clock.now() < seconds
    assert stored(store).state == "failed"
