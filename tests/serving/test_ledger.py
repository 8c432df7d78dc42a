"""What is used is noted, adds up over gateways and restarts, and waits while the store is away."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.endpoints.metering import Occupancy, Usage, grouped
from orchestrator.core.errors import StoreError
from orchestrator.serving.gateway.charging import Estimate
from orchestrator.serving.gateway.gateway_metrics import Tally
from orchestrator.serving.gateway.ledger import StoreLedger
from orchestrator.serving.gateway.routes import EndpointRoute
from tests.fakes import FakeClock
from tests.serving.http_server import Board, revision

NOON = 1_796_040_000.0  # 2026-11-30, 12:00 UTC
R1 = replace(revision("r1", "a", "b"), devices=2, hourly=7.2, concurrency=10)
ROUTE = EndpointRoute(name="chat", revisions=(R1,))
TALLY = Tally(0.0, sent=10.0, last=15.0, status=200, revision=R1, size=2)


@pytest.fixture
def store(tmp_path: Path) -> SqlDatabase:
    return SqlDatabase(tmp_path / "events.db")


def ledger_of(store: SqlDatabase, clock: FakeClock, name: str = "g1") -> StoreLedger:
    return StoreLedger(store, Board(ROUTE), clock, name)


def test_an_answer_costs_the_part_of_a_replica_that_it_took(store: SqlDatabase) -> None:
    ledger = ledger_of(store, FakeClock(NOON))
    ledger.add("ann", ROUTE, TALLY, Estimate(30, 70))
    ledger.write()
    (usage,) = store.usage("2026-11-01")
    assert usage == Usage(
        day="2026-11-30",
        key="ann",
        endpoint="chat",
        revision="r1",
        pool="pool-r1",
        requests=1,
        prompt_tokens=30,
        completion_tokens=70,
        seconds=10.0,
        cost=pytest.approx(10.0 * 7.2 / 3600 / 10),
    )


def test_gateways_and_restarts_add_up(store: SqlDatabase) -> None:
    clock = FakeClock(NOON)
    for name in ("g1", "g2", "g1"):
        ledger = ledger_of(store, clock, name)
        for _ in range(3):
            ledger.add("ann", ROUTE, TALLY, Estimate(1, 2))
        ledger.close()
    (usage,) = store.usage("2026-11-30")
    assert (usage.requests, usage.tokens) == (9, 27)
    assert ledger_of(store, clock).spent("ann") == pytest.approx(usage.cost)
    assert store.usage("2026-12-01") == []


def test_what_is_not_written_yet_is_spent_too(store: SqlDatabase) -> None:
    ledger = ledger_of(store, FakeClock(NOON))
    assert ledger.spent("ann") == 0.0
    ledger.add("ann", ROUTE, TALLY, Estimate(1, 2))
    before = ledger.spent("ann")
    assert before > 0.0
    ledger.write()
    assert ledger.spent("ann") == pytest.approx(before)


def test_a_month_begins_with_nothing_spent(store: SqlDatabase) -> None:
    clock = FakeClock(NOON)
    ledger = ledger_of(store, clock)
    ledger.add("ann", ROUTE, TALLY, Estimate(1, 2))
    ledger.write()
    clock.sleep(86_400.0)
    ledger.write()
    assert ledger.spent("ann") == 0.0


def test_each_gateway_hears_once_of_what_others_let_in(store: SqlDatabase) -> None:
    clock = FakeClock(NOON)
    here, there = ledger_of(store, clock, "g1"), ledger_of(store, clock, "g2")
    for ledger, times in ((here, 1), (there, 2)):
        for _ in range(times):
            ledger.add("ann", ROUTE, TALLY, Estimate(3, 4))
    for ledger in (here, there, here):
        ledger.write()
    assert [here.elsewhere("ann"), here.elsewhere("ann")] == [(2, 14), (0, 0)]
    assert there.elsewhere("ann") == (1, 7)
    assert ledger_of(store, clock, "g3").elsewhere("ann") == (0, 0), "that was before it"


class Away:
    """A store that refuses to be written, as long as it is away."""

    def __init__(self, store: SqlDatabase) -> None:
        self.store = store
        self.away = True

    def __getattr__(self, name: str) -> object:
        return getattr(self.store, name)

    def add_usage(self, *words: object) -> None:
        if self.away:
            raise StoreError("disk is full")
        self.store.add_usage(*words)  # type: ignore[arg-type]


def test_what_can_t_be_written_waits(store: SqlDatabase) -> None:
    clock = FakeClock(NOON)
    away = Away(store)
    ledger = StoreLedger(away, Board(ROUTE), clock, "g1")  # type: ignore[arg-type]
    for _ in range(2):
        ledger.add("ann", ROUTE, TALLY, Estimate(1, 2))
        clock.sleep(10.0)
        with pytest.raises(StoreError):
            ledger.write()
    away.away = False
    ledger.write()
    assert [usage.requests for usage in store.usage("2026-11-30")] == [2]
    assert [part.device_seconds for part in store.occupancy("2026-11-30")] == [80.0]


def test_what_replicas_hold_counts_asked_or_not_and_once_however_many_gateways_look(
    store: SqlDatabase,
) -> None:
    clock = FakeClock(NOON)
    ledgers = [ledger_of(store, clock, name) for name in ("g1", "g2")]
    clock.sleep(900.0)
    for ledger in ledgers:
        ledger.write()
    (held,) = store.occupancy("2026-11-30")
    assert held == Occupancy(
        day="2026-11-30",
        endpoint="chat",
        pool="pool-r1",
        device_seconds=900.0 * 2 * 2,
        cost=pytest.approx(0.25 * 2 * 7.2),
    )


@pytest.mark.parametrize("set_by", [-3600.0, 3600.0])
def test_a_clock_that_is_set_costs_nothing_and_saves_nothing(
    store: SqlDatabase, set_by: float
) -> None:
    clock = FakeClock(NOON)
    ledger = ledger_of(store, clock)
    for _ in range(2):
        clock.step(set_by)
        clock.sleep(40.0)
        ledger.write()
    (held,) = store.occupancy("2026-11-30")
    assert held.device_seconds == 80.0 * 2 * 2
    assert held.cost == pytest.approx(80.0 / 3600.0 * 2 * 7.2)


def test_a_request_that_came_to_no_replica_is_not_noted(store: SqlDatabase) -> None:
    ledger = ledger_of(store, FakeClock(NOON))
    ledger.add("ann", ROUTE, Tally(0.0), Estimate())
    ledger.write()
    assert store.usage("2026-11-30") == []


def test_usage_is_summed_by_what_is_asked_for() -> None:
    first = Usage(day="d1", key="ann", endpoint="chat", revision="r1", pool="a", requests=1)
    usages = [first, replace(first, key="bob"), replace(first, day="d2", cost=2.0)]
    by_key = grouped(usages, ["key"])
    assert [(usage.key, usage.requests, usage.cost) for usage in by_key] == [
        ("ann", 2, 2.0),
        ("bob", 1, 0.0),
    ]
    assert {usage.day for usage in by_key} == {""}
