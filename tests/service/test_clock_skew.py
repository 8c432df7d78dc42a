"""A host whose clock is wrong takes nothing over, and buries nothing: the database's clock judges.

Both hosts are seen as they see each other: the holder of the lease is on no machine that can be
looked at.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.schema import leases
from orchestrator.controller.lease import LeaseState
from orchestrator.controller.lease_keeper import LeaseKeeper
from orchestrator.controller.reaper import Reaper
from orchestrator.core.errors import HeldError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunStarted
from orchestrator.service import runs
from orchestrator.service.driving.claim import claim
from orchestrator.service.status import status
from orchestrator.supervisor import holder
from tests.build import header, plan, stage
from tests.fakes import FakeClock

FAR = "h0/boot 1/7/8"


class Host:
    """A machine whose clock differs from the database's, beside another one that has a run."""

    def __init__(self, home: Path, ahead: float) -> None:
        self.store = SqlDatabase(home / "events.db")
        self.clock = FakeClock(self.store.now() + ahead)
        self.store.create(header(plan(stage("s"))), self.store.now())
        self.store.append("run", 1, (RunStarted(1),), self.store.now() - 100.0)
        self.buried: list[str] = []
        self.reaper = Reaper(self.store, holder.lives, self._bury)

    def _bury(self, run: Run, _reason: str) -> bool:
        self.buried.append(run.header.run)
        return True

    @property
    def run(self) -> Run:
        known = self.store.header("run")
        return fold(known, ((item.at, item.event) for item in self.store.events("run")))

    def lease(self, age: float) -> None:
        """Have the other host renew its lease, `age` seconds ago."""
        LeaseKeeper(self.store, FakeClock(1e6), FAR).turn(self.run)
        with self.store._writing() as connection:
            connection.execute(leases.update().values(at=leases.c.at - age))


@pytest.fixture(params=[60.0, -60.0], ids=["ahead", "behind"])
def host(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, request.param)
    monkeypatch.setattr(wiring, "clock", lambda: made.clock)
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    return made


def test_a_live_run_of_another_host_is_left_to_it(host: Host) -> None:
    host.lease(age=1.0)
    with pytest.raises(HeldError, match="seen 1 s ago"):
        claim(host.store, host.store.header("run"), by_force=False)
    assert runs.lease_state(host.store, host.run) is LeaseState.ALIVE
    assert not status("run").lost
    assert [host.reaper.reap(), host.reaper.reap()] == [True, True]
    assert host.buried == []


def test_a_dead_one_is_taken_over_without_waiting_longer(host: Host) -> None:
    host.lease(age=31.0)
    assert claim(host.store, host.store.header("run"), by_force=False).epoch == 1
    assert status("run").lost
    assert round(status("run").silent) == 31
    assert [host.reaper.reap(), host.reaper.reap()] == [True, False]
    assert host.buried == ["run"]
