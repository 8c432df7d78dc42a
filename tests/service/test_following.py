"""Whoever follows a run reads what is new of it, and not its whole history at each look."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptPlaced,
    AttemptSaved,
    AttemptStarted,
    CancelRequested,
    RunCancelled,
    RunStarted,
)
from orchestrator.messages import Lease
from orchestrator.ports import LogChunk
from orchestrator.service import driving, runs
from orchestrator.service.cancelling import cancel
from orchestrator.service.logs import Logs
from tests.build import plan, stage

FAR = "gpu-7/another boot/12/34"
WORKING = (RunStarted(1), AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)))
CANCELLED = (
    CancelRequested("asked"),
    AttemptCancelled("s", 1),
    RunCancelled(),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SqlDatabase:
    """A database with a run that is driven elsewhere."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.delenv("ORCHESTRATOR_DATABASE", raising=False)
    store = wiring.database(tmp_path)
    store.create(RunHeader(run="run-1", plan=plan(stage("s"))), 1.0)
    store.append("run-1", 1, WORKING, 2.0)
    store.renew_lease(Lease(run="run-1", epoch=1, at=store.now(), holder=FAR))
    return store


@contextmanager
def read_after() -> Iterator[list[int]]:
    """Note after which number events are read, of all databases of this process."""
    numbers = list[int]()

    def asked(_connection: object, _cursor: object, text: str, given: Any, *_: object) -> None:
        if "FROM events" in text:
            numbers.append(given[-1])

    event.listen(Engine, "before_cursor_execute", asked)
    try:
        yield numbers
    finally:
        event.remove(Engine, "before_cursor_execute", asked)


def test_a_run_is_caught_up_with_by_the_events_that_are_new(store: SqlDatabase) -> None:
    run = runs.load(store, store.header("run-1"))
    assert runs.caught_up(store, run) is run
    store.append("run-1", 4, (AttemptSaved("s", 1, 5),), 3.0)
    with read_after() as numbers:
        now = runs.caught_up(store, run)
    assert numbers == [3]
    assert now == runs.load(store, run.header)


def test_who_follows_logs_reads_what_is_new_of_the_run(store: SqlDatabase) -> None:
    lines = Logs(runs.find("run-1")).lines(follow=True)
    with read_after() as numbers:
        store.add_log("run-1", [LogChunk(stage="s", attempt=1, at=2.0, text="first\n")])
        assert next(lines) == "(s.1) first"
        store.append("run-1", 4, (AttemptSaved("s", 1, 5),), 3.0)
        store.add_log("run-1", [LogChunk(stage="s", attempt=1, at=3.0, text="then\n")])
        assert next(lines) == "(s.1) then"
        store.append("run-1", 5, CANCELLED, 4.0)
        assert list(lines) == []
    assert numbers[0] == 3
    assert numbers[-1] in {4, 7}
    assert 0 not in numbers


def test_who_waits_for_the_end_of_a_run_reads_what_is_new_of_it(store: SqlDatabase) -> None:
    run = runs.find("run-1")
    store.append("run-1", 4, CANCELLED, 4.0)
    with read_after() as numbers:
        cancelled = cancel(run, driving.Unseen()).make()
    assert cancelled.run.done
    assert set(numbers) == {3}
