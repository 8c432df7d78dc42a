"""Servers that somebody else runs are asked again and again, and told when they are dead."""

from __future__ import annotations

import pytest

from orchestrator.core.endpoints.life import (
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    SharesMoved,
)
from orchestrator.core.errors import ServingError
from orchestrator.core.settings import ReconcilerSettings
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.endpoints.outside_watch import LEASE, OutsideWatch
from tests.serving_fakes import MemoryEndpoints

ONE, TWO = Outside(address="http://one/v1", model="m"), Outside(address="http://two/v1", model="m")


class Bench:
    """An endpoint of two servers outside."""

    def __init__(self) -> None:
        self.store = MemoryEndpoints()
        events = (
            RevisionAdded(1, outside=ONE),
            RevisionReady(1),
            RevisionAdded(2, outside=TWO),
            RevisionReady(2),
            SharesMoved({1: 50, 2: 50}, "both"),
        )
        self.store.follow(self.store.endpoint("chat"), events, 1.0)
        self.dead: set[str] = set()
        self.asked: list[str] = []
        self.told: list[str] = []
        self.watch = OutsideWatch(self.store, self.ask, self.told.append, "me")

    def ask(self, server: Outside) -> None:
        self.asked.append(server.address)
        if server.address in self.dead:
            raise ServingError(f"no server answers at {server.address!r}")


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_server_that_is_dead_three_times_is_told_until_it_answers(bench: Bench) -> None:
    bench.dead = {TWO.address}
    for _ in range(2):
        bench.watch.check()
    assert bench.store.troubles() == {}
    for _ in range(3):
        bench.watch.check()
    assert bench.store.troubles() == {("chat", 2): "no server answers at 'http://two/v1'"}
    bench.dead = set()
    bench.watch.check()
    assert bench.store.troubles() == {}
    assert bench.told == [
        "chat.r2 gets nothing while others can answer: no server answers at 'http://two/v1'",
        "chat.r2 answers again",
    ]


def test_how_often_it_may_be_dead_is_a_setting(bench: Bench) -> None:
    bench.dead = {TWO.address}
    when = ReconcilerSettings(outside_failures=1)
    OutsideWatch(bench.store, bench.ask, bench.told.append, "me", when).check()
    assert bench.store.troubles() == {("chat", 2): "no server answers at 'http://two/v1'"}


def test_what_another_process_has_noted_is_taken_back_by_the_first_answer(bench: Bench) -> None:
    bench.store.note_trouble("chat", 1, "it was dead")
    bench.watch.check()
    assert bench.store.troubles() == {}


def test_one_that_failed_now_and_then_is_not_dead(bench: Bench) -> None:
    for _ in range(5):
        for bench.dead in ({ONE.address}, {ONE.address}, set()):
            bench.watch.check()
    assert bench.store.troubles() == {}


def test_who_has_no_lease_asks_nobody_and_a_retired_revision_is_not_asked(bench: Bench) -> None:
    bench.store.leases[LEASE] = "another"
    bench.watch.check()
    assert bench.asked == []
    bench.store.leases[LEASE] = "me"
    events = [SharesMoved({2: 100}, ""), RevisionRetired(1, "")]
    bench.store.follow(bench.store.endpoint("chat"), events, 2.0)
    bench.watch.check()
    assert bench.asked == [TWO.address]


def test_an_error_that_nobody_thought_of_is_trouble_of_that_server_alone(bench: Bench) -> None:
    def ask(server: Outside) -> None:
        if server == ONE:
            raise RecursionError("odd")

    watch = OutsideWatch(bench.store, ask, bench.told.append, "me")
    for _ in range(3):
        watch.check()
    assert bench.store.troubles() == {("chat", 1): "odd"}
