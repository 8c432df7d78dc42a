"""Another pool helps out an endpoint that has no room, for as long as that is of use."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.endpoints.life import (
    Deployment,
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    TrafficMoved,
)
from orchestrator.core.endpoints.promotion import TrafficFigures
from orchestrator.core.settings import RECONCILER, ReconcilerSettings
from orchestrator.endpoints.overflow import Overflow
from orchestrator.endpoints.revisions import Revisions
from tests.build import deployment
from tests.fakes import FakeClock
from tests.interposed import Interposed
from tests.serving_fakes import FakeReplicas, FakeTraffic, MemoryEndpoints


class Bench:
    """An endpoint `chat` on pool `a`; pools `b` and `c` may help."""

    def __init__(self, when: ReconcilerSettings = RECONCILER) -> None:
        self.clock = FakeClock(10.0)
        self.store, self.replicas = MemoryEndpoints(), FakeReplicas()
        self.traffic = FakeTraffic()
        self.told: list[str] = []
        self.asked: list[str] = []
        self.made = deployment("chat")
        self.made = replace(
            self.made, endpoint=replace(self.made.endpoint, overflow=("a", "b", "c"))
        )
        self.follow(RevisionAdded(1, self.made), RevisionReady(1), TrafficMoved({1: 100}, ""))
        self.overflow = Overflow(
            self.store,
            self.traffic,
            Revisions(self.store, self.replicas, self.clock),
            self.clock,
            self.told.append,
            lambda _, pool: self.asked.append(pool),
            when,
        )

    def follow(
        self, *events: RevisionAdded | RevisionReady | TrafficMoved | RevisionRetired
    ) -> None:
        self.store.follow(self.store.endpoint("chat"), events, self.clock.now())

    def look(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.overflow.reconcile()
            self.clock.sleep(1.0)

    def helper(self) -> Deployment:
        made = deployment("chat", pool_name="b", revision=2)
        rollout = replace(made.endpoint.rollout, overflow=True)
        return replace(made, endpoint=replace(made.endpoint, rollout=rollout))

    def join(self, made: Deployment) -> None:
        """Have the helper there, as a run of its own makes it."""
        self.replicas.there[made.application] = made
        self.follow(RevisionAdded(2, made), RevisionReady(2))
        self.follow(TrafficMoved({1: 100}, "overflow", overflow=2))

    @property
    def live(self) -> list[str]:
        return [revision.name for revision in self.store.endpoint("chat").live]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_help_is_asked_for_when_requests_have_waited_for_a_moment(bench: Bench) -> None:
    bench.look(100)
    assert bench.asked == []
    bench.traffic.crowd = 7
    bench.look(3)
    assert bench.asked == []
    bench.look(60)
    assert bench.asked == ["b"]
    assert bench.told == ["7 requests wait for chat: pool b is to help"]


def test_a_short_crowd_is_no_reason(bench: Bench) -> None:
    for _ in range(20):
        bench.traffic.crowd = 1 - bench.traffic.crowd
        bench.look(2)
    assert bench.asked == []


def test_the_settings_say_how_long_a_crowd_and_a_lull_are() -> None:
    bench = Bench(ReconcilerSettings(crowd=30.0, lull=10.0))
    bench.traffic.crowd = 7
    bench.look(30)
    assert bench.asked == []
    bench.look(1)
    assert bench.asked == ["b"]
    bench.join(bench.helper())
    bench.traffic.crowd = 0
    bench.look(10)
    assert bench.live == ["r1", "r2"]
    bench.look(2)
    assert bench.live == ["r1"]


def test_where_the_first_pool_does_not_come_the_next_one_is_asked(bench: Bench) -> None:
    bench.traffic.crowd = 7
    bench.look(300)
    assert bench.asked == ["b", "c", "b"]


def test_nobody_is_asked_while_a_revision_is_on_its_way(bench: Bench) -> None:
    bench.follow(RevisionAdded(2, deployment("chat", pool_name="b", revision=2)))
    bench.traffic.crowd = 7
    bench.look(300)
    assert bench.asked == []


def test_an_endpoint_without_such_pools_waits_by_itself() -> None:
    bench = Bench()
    bench.store.lives.clear()
    bench.follow(RevisionAdded(1, deployment("chat")), RevisionReady(1))
    bench.follow(TrafficMoved({1: 100}, ""))
    bench.traffic.crowd = 7
    bench.look(300)
    assert bench.asked == []


def test_a_helper_stays_while_it_answers_or_others_wait_and_then_goes(bench: Bench) -> None:
    bench.join(bench.helper())
    for count in range(300):
        bench.traffic.told = {"r2": TrafficFigures(requests=count)}
        bench.look(1)
    bench.traffic.crowd = 1
    bench.look(300)
    bench.traffic.crowd = 0
    bench.look(119)
    assert bench.live == ["r1", "r2"]
    bench.look(3)
    assert (bench.live, list(bench.replicas.there)) == (["r1"], [])
    assert bench.store.endpoint("chat").overflow is None
    assert bench.told == ["chat.r2 helps no more: nobody needed it for 120 s"]


def test_one_that_helped_another_revision_than_the_one_that_leads_goes_at_once(
    bench: Bench,
) -> None:
    bench.join(bench.helper())
    bench.look(1)
    assert bench.live == ["r1", "r2"]
    bench.follow(RevisionAdded(3, deployment("chat", revision=3)), RevisionReady(3))
    bench.follow(TrafficMoved({1: 60, 3: 40}, "rollout", overflow=2))
    bench.look(1)
    assert bench.live == ["r1", "r2", "r3"]
    bench.follow(TrafficMoved({3: 100}, "rollout", overflow=2))
    bench.look(1)
    assert bench.live == ["r1", "r3"]
    assert bench.told == ["chat.r2 helps no more: chat.r3 leads now"]


def test_an_overflow_that_somebody_set_by_hand_is_left_alone(bench: Bench) -> None:
    bench.join(deployment("chat", pool_name="b", revision=2))
    bench.look(300)
    assert bench.live == ["r1", "r2"]


def test_a_gateway_that_is_away_changes_nothing(bench: Bench) -> None:
    bench.join(bench.helper())
    bench.traffic.away = True
    bench.look(300)
    assert bench.live == ["r1", "r2"]


def test_help_that_never_becomes_ready_goes_and_the_next_pool_is_asked(bench: Bench) -> None:
    """What deployed it was killed, and nobody resumes that run."""
    bench.traffic.crowd = 3
    made = bench.helper()
    bench.follow(RevisionAdded(2, made))
    bench.look(made.endpoint.ready)
    assert bench.live == ["r1", "r2"]
    bench.look(200)
    assert bench.live == ["r1"]
    assert bench.asked


def test_help_to_which_somebody_moves_the_traffic_is_not_taken_away(bench: Bench) -> None:
    bench.join(bench.helper())
    bench.look(60)
    acts = [lambda: bench.follow(TrafficMoved({2: 100}, "by ann"))]

    def first(_life: object, events: object, _at: float) -> None:
        if acts and "RevisionRetired" in repr(events):
            acts.pop()()

    store = Interposed(bench.store, follow=first)
    bench.overflow._revisions = Revisions(store, bench.replicas, bench.clock)  # type: ignore[arg-type]
    bench.look(200)
    assert not acts
    assert bench.store.endpoint("chat").shares == {2: 100}
    assert "r2" in bench.live
