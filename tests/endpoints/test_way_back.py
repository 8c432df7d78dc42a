"""While the store is away a rollout and its way back wait, and go to who is there."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.endpoints.life import RevisionRetired, SharesMoved
from orchestrator.core.errors import StoreError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.endpoints.rollout import Rollouts
from orchestrator.messages import Failed, LogLine, Succeeded
from tests.endpoints.bench import RULES, Bench, failure
from tests.interposed import Interposed


def test_a_rollout_survives_a_store_that_is_away(bench: Bench) -> None:
    down: list[bool] = []

    def away(*_: object) -> None:
        if down:
            raise StoreError("the database is away")

    store = Interposed(bench.store, follow=away, endpoint=away)
    bench.rollouts = Rollouts(bench.replicas, store, bench.traffic, bench.clock)  # type: ignore[arg-type]
    bench.clock.at(1005.0, lambda: down.append(True))
    bench.clock.at(1035.0, down.clear)
    bench.clock.at(1050.0, lambda: down.append(True))
    bench.clock.at(1070.0, down.clear)
    said = bench.go(bench.asked("b", 2), 300.0)
    assert isinstance(said[-1], Succeeded)
    waits = [m.text for m in said if isinstance(m, LogLine) and "waits for the store" in m.text]
    assert len(waits) == 2, "told once each time"


def test_the_way_back_waits_for_the_store_too(bench: Bench) -> None:
    down: list[bool] = []

    def away(*_: object) -> None:
        if down:
            raise StoreError("the database is away")

    store = Interposed(bench.store, follow=away)
    bench.rollouts = Rollouts(bench.replicas, store, bench.traffic, bench.clock)  # type: ignore[arg-type]
    asked = bench.asked("b", 2)
    bench.go(asked, 12.0)
    bench.traffic.status_of["chat.r2"] = 500
    down.append(True)
    assert not [m for m in bench.on(asked, 30.0) if isinstance(m, Failed)]
    assert bench.shares == {1: 50, 2: 50}
    down.clear()
    kind, _ = failure(bench.on(asked, 30.0))
    assert kind is FailureKind.ROLLED_BACK
    assert bench.shares == {1: 100}
    again = bench.asked("b", 3)
    bench.traffic.status_of.clear()
    bench.go(again, 12.0)
    down.append(True)
    bench.clock.at(bench.clock.monotonic() + 3.0, down.clear)
    bench.rollouts.cancel(again.key)
    assert bench.shares == {1: 100}


def test_the_way_back_goes_to_who_is_there(bench: Bench) -> None:
    """Who had the traffic before was retired meanwhile."""
    first = bench.asked("b", 2, replace(RULES, steps=()))
    bench.go(first)
    life = bench.store.endpoint("chat")
    bench.store.follow(life, [SharesMoved({1: 50, 2: 50}, "by ann")], 1.0)
    asked = bench.asked("c", 3)
    bench.go(asked, 5.0)
    life = bench.store.endpoint("chat")
    gone = [SharesMoved({2: 90, 3: 10}, "by ann"), RevisionRetired(1, "by ann")]
    bench.store.follow(life, gone, 1.0)
    bench.traffic.status_of["chat.r3"] = 500
    kind, evidence = failure(bench.on(asked, 30.0))
    assert kind is FailureKind.ROLLED_BACK
    assert evidence.endswith("r2 serves on")
    assert bench.shares == {2: 100}


def test_a_rollout_and_its_way_back_keep_overflow_and_what_it_was_told(bench: Bench) -> None:
    helper = bench.asked("h", 2, replace(RULES, overflow=True))
    assert isinstance(bench.go(helper)[-1], Succeeded)
    asked = bench.asked("b", 3)
    bench.go(asked, 5.0)
    bench.traffic.status_of["chat.r3"] = 500
    failure(bench.on(asked, 30.0))
    life = bench.store.endpoint("chat")
    assert (life.shares, life.overflow) == ({1: 100}, 2)
