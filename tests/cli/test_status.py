"""What `status RUN` shows of a run that goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.states import AttemptFailed, AttemptPlaced, AttemptStarted, RunStarted
from orchestrator.messages import Busy, Lease
from orchestrator.service import driving
from orchestrator.supervisor import holder
from tests.build import failure


@pytest.fixture
def store(tmp_path: Path, within) -> SqlDatabase:
    return wiring.database(tmp_path / ".orchestrator")


def begun(store: SqlDatabase, *events: object, ago: float = 30.0) -> str:
    """Record a run that long ago, which this process drives; return its id."""
    found, planned = wiring.planned(["cluster=local", "tracking=none", "pipeline=noop"])
    now = wiring.clock().now()
    header = driving.new_header(found, planned, home=wiring.home())
    store.create(header, now - ago)
    place, pool = (planned.stages[0].stage.name, 1), planned.stages[0].pools[0]
    began = (RunStarted(1), AttemptStarted(*place, pool), AttemptPlaced(*place, ("n1",)))
    store.append(header.run, 1, began, now - ago)
    store.renew_lease(Lease(run=header.run, epoch=1, at=now, holder=holder.name()))
    store.note_busy(header.run, [Busy(*place, "saving a [big] checkpoint", now - 12.2)])
    if events:
        store.append(header.run, 4, (AttemptFailed(*place, failure()),), now)
    return header.run


def test_what_a_running_attempt_is_busy_with_is_shown_and_for_how_long(store, within):
    run = begun(store)
    assert "saving a [big] checkpoint (12s)" in within("status", run).stdout
    (attempt,) = json.loads(within("status", run, "--json").stdout)["attempts"]
    assert attempt["busy"]["with"] == "saving a [big] checkpoint"
    assert 12.0 < attempt["busy"]["since_seconds"] < 20.0


def test_one_that_has_ended_is_busy_no_more(store, within):
    run = begun(store, AttemptFailed)
    assert "saving" not in within("status", run).stdout
    (attempt,) = json.loads(within("status", run, "--json").stdout)["attempts"]
    assert attempt["busy"] is None


def test_one_whose_controller_is_gone_is_not_said_to_be_busy(store, within):
    run = begun(store)
    store.drop_lease(run, 1)
    assert "saving" not in within("status", run).stdout
