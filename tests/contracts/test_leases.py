"""What every database must keep of leases. Runs against SQLite, PostgreSQL and the fake."""

from __future__ import annotations

import pytest

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.errors import StaleControllerError
from orchestrator.core.runs.states import RunStarted
from orchestrator.messages import Lease
from orchestrator.ports import Leases
from tests.build import header, plan, stage
from tests.fakes import MemoryStore

FIRST = Lease(run="run", epoch=1, at=1.0, holder="a")
SECOND = Lease(run="run", epoch=2, at=2.0, holder="b")


@pytest.fixture
def store(kept: SqlDatabase | MemoryStore) -> Leases:
    kept.create(header(plan(stage("s"))), 0.0)
    return kept


def test_the_last_lease_of_the_latest_epoch_stands(store: Leases) -> None:
    assert store.lease("run") is None
    store.renew_lease(FIRST)
    assert store.lease("run") == FIRST
    store.renew_lease(SECOND)
    assert tuple(store.leases()) == (SECOND,)
    with pytest.raises(StaleControllerError):
        store.renew_lease(FIRST)
    assert store.lease("run") == SECOND


def test_a_lease_comes_with_the_events_that_it_belongs_to_or_not_at_all(
    kept: SqlDatabase | MemoryStore, store: Leases
) -> None:
    kept.append("run", 1, (RunStarted(1),), 1.0, FIRST)
    assert store.lease("run") == FIRST
    loser = Lease(run="run", epoch=1, at=9.0, holder="loser")
    with pytest.raises(StaleControllerError):
        kept.append("run", 1, (RunStarted(1),), 9.0, loser)
    assert store.lease("run") == FIRST
    kept.append("run", 2, (RunStarted(2),), 2.0, SECOND)
    assert store.lease("run") == SECOND


def test_a_lease_is_dropped_by_its_own_epoch_alone(store: Leases) -> None:
    store.renew_lease(SECOND)
    store.drop_lease("run", 1)
    assert store.lease("run") == SECOND
    store.drop_lease("run", 2)
    store.drop_lease("run", 2)
    assert store.lease("run") is None


def test_times_that_hosts_compare_are_by_the_clock_of_the_database(url: str) -> None:
    database = SqlDatabase(url)
    assert abs(database.now() - SystemClock().now()) < 2.0, "of this machine"
    first, second = database.now(), database.now()
    assert first <= second
    database.close()
