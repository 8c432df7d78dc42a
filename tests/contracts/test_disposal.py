"""What every database forgets of a run, and what it leaves of others."""

from __future__ import annotations

from dataclasses import replace

from sqlalchemy import func, select

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.schema import metadata
from orchestrator.core.runs.states import RunStarted
from orchestrator.messages import Busy, Lease, Points, Queued, Succeeded, Untold
from orchestrator.ports import LogChunk
from tests.contracts.test_database import HEADER, store  # noqa: F401 - a fixture


def fill(store: SqlDatabase, run: str) -> None:  # noqa: F811 - no fixture here
    """Put something of a run into every table that has any."""
    store.append(run, 1, (RunStarted(1),), 1.0)
    store.add_points(run, "s", 1, [Points(1, {"loss": 1.0, "lr": 2.0}, 1.0)])
    store.add_log(run, [LogChunk(id=0, stage="s", attempt=1, at=1.0, text="a line\n", page="")])
    store.note_busy(run, [Busy("s", 1, "saving", 1.0)])
    store.note_untold(run, [Untold("log lines", 1, "full")])
    store.note_report(run, ("s", 1), "parity.md", "fine")
    store.renew_lease(Lease(run=run, epoch=1, at=1.0))
    store.queue_up(run, [Queued(pool="a", run=run, stage="s", priority=0, since=1.0)])
    store.approve(run, "s", "ann")
    store.remember(f"key of {run}", Succeeded(None), run)


def rows(store: SqlDatabase, run: str) -> dict[str, int]:  # noqa: F811 - no fixture here
    """Return how many rows each table has of a run; those that have none are left out."""
    tables = [table for table in metadata.sorted_tables if "run" in table.c]
    with store._reading() as connection:
        counts = {
            t.name: connection.scalar(select(func.count()).where(t.c.run == run)) for t in tables
        }
    return {name: count for name, count in counts.items() if count}


def test_a_run_that_is_forgotten_leaves_nothing_and_others_keep_all(
    store: SqlDatabase,  # noqa: F811 - the fixture
) -> None:
    store.create(replace(HEADER, run="other"), 1.0)
    for run in ("r2-1", "other"):
        fill(store, run)
    before = rows(store, "other")
    assert before == rows(store, "r2-1")
    assert store.forget_run("r2-1") == sum(before.values())
    assert rows(store, "r2-1") == {}
    assert rows(store, "other") == before
    assert store.forget_run("r2-1") == 0


def test_what_tells_of_a_run_goes_and_the_run_stays(
    store: SqlDatabase,  # noqa: F811 - the fixture
) -> None:
    fill(store, "r2-1")
    assert store.count_telling("r2-1") == 3
    assert store.forget_telling("r2-1") == 6
    assert (store.count_telling("r2-1"), len(store.events("r2-1"))) == (0, 1)


def test_results_of_a_run_stand_for_nothing_any_more(
    store: SqlDatabase,  # noqa: F811 - the fixture
) -> None:
    fill(store, "r2-1")
    assert store.forget_results("r2-1") == 1
    assert store.recall("key of r2-1") is None
