"""What is wrong with one endpoint, a lease or a clock keeps nothing from the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.endpoints.life import (
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    SharesMoved,
)
from orchestrator.core.errors import ServingError
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.messages import RevisionStatus
from tests.build import deployment
from tests.fakes import FakeClock
from tests.serving_fakes import FakeReplicas, MemoryEndpoints

IDLE = 60.0


class Fragile(FakeReplicas):
    """Refuses what concerns some revisions, and may take long to say what lives."""

    def __init__(self) -> None:
        super().__init__()
        self.refusing: set[str] = set()
        self.while_looking: list[Callable[[], object]] = []

    def delete(self, name: str) -> None:
        if name in self.refusing:
            raise ServingError(f"{name!r} can't be deleted: its controller is busy")
        super().delete(name)

    def live(self) -> Mapping[str, RevisionStatus]:
        found = super().live()
        while self.while_looking:
            self.while_looking.pop()()
        return found


class Bench:
    """Endpoints `a` and `b`, each with a revision, and their reconciler."""

    def __init__(self) -> None:
        self.clock, self.replicas = FakeClock(1000.0), Fragile()
        self.store = MemoryEndpoints()
        self.store.now = self.clock.monotonic
        self.told: list[str] = []
        for name in ("a", "b"):
            self.serve(name)
        self.reconciler = self.again("one")

    def again(self, holder: str) -> Reconciler:
        ports = (self.store, self.replicas, self.clock)
        return Reconciler(ports, self.told.append, lambda *_: None, holder=holder)

    def serve(self, name: str, idle: float | None = None) -> None:
        made = deployment(name, run=f"run-{name}")
        made = replace(made, endpoint=replace(made.endpoint, idle=idle))
        events = [RevisionAdded(1, made), RevisionReady(1), SharesMoved({1: 100}, "first")]
        self.store.follow(self.store.endpoint(name), events, self.clock.now())
        self.replicas.there[made.application] = made

    def retire(self, name: str) -> None:
        self.store.follow(self.store.endpoint(name), [RevisionRetired(1, "enough")], 1.0)

    def pass_time(self, seconds: float) -> list[str]:
        """Look once a second; return what was not possible."""
        wrong = []
        for _ in range(int(seconds)):
            try:
                self.reconciler.reconcile()
            except ServingError as error:
                wrong.append(str(error))
            self.clock.sleep(1.0)
        return wrong


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_revision_that_can_not_be_removed_keeps_no_other_from_being_restored(
    bench: Bench,
) -> None:
    bench.retire("a")
    bench.replicas.refusing.add("a.r1")
    bench.pass_time(2)
    del bench.replicas.there["b.r1"]
    wrong = bench.pass_time(20)
    assert "b.r1" in bench.replicas.there
    assert set(wrong) == {"'a.r1' can't be deleted: its controller is busy"}
    bench.replicas.refusing.clear()
    assert bench.pass_time(1) == []
    assert list(bench.replicas.there) == ["b.r1"]


def test_who_loses_the_lease_in_a_long_look_does_nothing_more(bench: Bench) -> None:
    bench.pass_time(2)
    bench.retire("a")
    del bench.replicas.there["b.r1"]
    bench.clock.sleep(10.0)
    cluster = bench.replicas.cluster()

    def taken() -> None:
        bench.clock.sleep(30.0)  # the cluster takes its time
        bench.store.leases[cluster] = "two"

    bench.replicas.while_looking.append(taken)
    noted = bench.store.replicas()
    assert bench.reconciler.reconcile(), "who does not lead may not end what serves"
    assert list(bench.replicas.there) == ["a.r1"]
    assert (bench.store.replicas(), bench.replicas.asked) == (noted, {})


def test_replicas_that_were_noted_after_their_revision_was_retired_are_forgotten(
    bench: Bench,
) -> None:
    bench.retire("a")
    bench.store.note_replicas("a", 1, ("http://a.r1",))  # by a look that began before
    bench.pass_time(2)
    assert bench.store.replicas().keys() == {("b", 1)}


@given(step=st.floats(-1e6, 1e6), at=st.integers(0, 90), asked=st.booleans())
def test_a_clock_that_is_set_neither_ends_who_is_asked_nor_keeps_who_is_not(
    step: float,
    at: int,
    asked: bool,  # noqa: FBT001 - an example's value
) -> None:
    bench = Bench()
    bench.serve("c", idle=IDLE)
    bench.clock.at(bench.clock.monotonic() + at, lambda: bench.clock.step(step))
    for second in range(100):
        if asked:
            bench.store.note_asked("c")
        bench.pass_time(1)
        if asked or second < IDLE:
            assert "c.r1" in bench.replicas.there, second
    assert ("c.r1" in bench.replicas.there) == asked


def test_a_reconciler_that_begins_anew_ends_in_time_what_nobody_asks(bench: Bench) -> None:
    bench.serve("c", idle=IDLE)
    bench.pass_time(30)
    bench.reconciler = bench.again("one")
    bench.pass_time(25)
    assert "c.r1" in bench.replicas.there
    bench.pass_time(10)
    assert "c.r1" not in bench.replicas.there
