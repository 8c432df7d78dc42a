"""What lists many runs asks the database as often as for a few."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.states import AttemptFailed, AttemptStarted, RunStarted
from orchestrator.messages import Lease
from orchestrator.service import status
from tests.build import failure, header, plan, stage
from tests.statements import counted


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlDatabase:
    """Runs that have controllers, that lost theirs, and that nobody has begun."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.delenv("ORCHESTRATOR_DATABASE", raising=False)
    store = SqlDatabase(tmp_path / "events.db")
    planned = plan(stage("s"))
    for number in range(24):
        name = f"run-{number}"
        store.create(header(planned, name), float(number))
        if number % 3:
            store.append(name, 1, (RunStarted(1), AttemptStarted("s", 1, "a")), 50.0)
            store.append(name, 3, (AttemptFailed("s", 1, failure()),), 60.0 + number)
        if number % 3 == 1:
            store.renew_lease(Lease(run=name, epoch=1, at=store.now()))
    return store


def test_many_runs_are_listed_by_as_many_questions_as_a_few(store: SqlDatabase) -> None:
    def questions(limit: int) -> int:
        with counted() as counts:
            assert len(status.newest(limit)) == limit
        return counts["SELECT"]

    status.newest(1)  # makes what the database lacks
    assert questions(24) == questions(3)
    store.close()


def test_each_of_many_stands_as_it_does_alone(store: SqlDatabase) -> None:
    listed = status.newest(24)
    assert [seen.run.header.run for seen in listed] == [f"run-{n}" for n in reversed(range(24))]
    for seen in listed:
        alone = status.status(seen.run.header.run)
        assert (seen.run, seen.controller) == (alone.run, alone.controller)
        assert seen.at == alone.at or not seen.lost
    lost = [seen for seen in listed if seen.lost and seen.run.epoch]
    assert {seen.at for seen in lost} == {60.0 + n for n in range(24) if n % 3 == 2}
    store.close()
