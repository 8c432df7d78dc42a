"""What every database must remember beside the events: the latest word of each."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.schema import queues
from orchestrator.core.errors import NotFoundError
from orchestrator.messages import Busy, Queued, Untold, UnusedNode
from tests.contracts.test_database import store  # noqa: F401 - a fixture


def entry(pool: str, stage: str, since: float = 1.0) -> Queued:
    return Queued(pool=pool, run="r2-1", stage=stage, priority=3, since=since)


def test_a_pool_is_emptied_until_it_is_not(store: SqlDatabase) -> None:  # noqa: F811 - the fixture
    store.drain("ascend", "firmware")
    store.drain("ascend", "new firmware")
    assert store.drained() == {"ascend": "new firmware"}
    store.undrain("ascend")
    store.undrain("ascend")
    assert store.drained() == {}


def test_an_approval_is_of_a_run_that_exists(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.approve("r2-1", "train", "ann")
    assert store.approvals("r2-1") == {"train": "ann"}
    assert store.approvals("other") == {}
    with pytest.raises(NotFoundError, match="no run 'other'"):
        store.approve("other", "train", "ann")


def test_a_run_waits_for_what_it_said_last(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.queue_up("r2-1", (entry("a", "s"), entry("b", "t")))
    store.queue_up("r2-1", (entry("b", "t", since=2.0),))
    assert store.queue(60.0) == [entry("b", "t", since=2.0)]
    assert store.queue(60.0, ["b", "c"]) == [entry("b", "t", since=2.0)]
    assert store.queue(60.0, ["a"]) == []
    with store._writing() as connection:
        connection.execute(update(queues).values(at=queues.c.at - 90.0))
    assert store.queue(60.0) == []
    with store._writing() as connection:
        connection.execute(update(queues).values(at=queues.c.at + 180.0))
    assert store.queue(60.0) == [], "said in the future: the clock was set since"
    store.queue_up("r2-1", ())
    assert store.queue(1e9) == []


def test_a_run_is_busy_with_what_was_noted_last(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.note_busy("r2-1", [Busy("train", 2, "saving", 7.5)])
    last = [Busy("evaluate", 1, "compiling", 9.0), Busy("train", 2, "validating", 9.5)]
    store.note_busy("r2-1", last)
    assert list(store.busy("r2-1")) == last
    store.note_busy("r2-1", ())
    assert list(store.busy("r2-1")) == []


def test_what_was_not_told_of_a_run_is_what_was_noted_last(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.note_untold("r2-1", [Untold("log lines were not written", 1, "No space left")])
    last = [
        Untold("leases were not renewed in time", 2, "locked"),
        Untold("log lines were not written", 3, "No space left"),
    ]
    store.note_untold("r2-1", last)
    assert store.untold("r2-1") == last
    store.note_untold("r2-1", ())
    assert store.untold("r2-1") == []


def test_a_node_is_in_quarantine_for_a_time(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.quarantine("f/a", "n1", "Xid 79", 3600.0)
    store.quarantine("f/a", "n1", "Xid 48", 60.0)
    store.quarantine("f/a", "n2", "Xid 79", -1.0)
    (unused,) = store.unused_nodes()
    assert (unused.pool, unused.node, unused.reason) == ("f/a", "n1", "Xid 79")
    assert unused.until is not None
    assert abs(unused.until - store.now() - 3600.0) < 60.0
    store.release_node("f/a", "n1")
    store.release_node("f/a", "n1")
    assert store.unused_nodes() == []


def test_a_node_that_somebody_drains_is_not_let_in_by_time(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.quarantine("f/a", "n1", "Xid 79", 60.0)
    store.drain_node("f/a", "n1", "new firmware")
    store.quarantine("f/a", "n1", "Xid 79", 3600.0)
    drained = UnusedNode(pool="f/a", node="n1", reason="new firmware")
    assert store.unused_nodes() == [drained]
