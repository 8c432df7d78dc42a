"""The reconciler makes the cluster as the store says, and forgets nothing when it is killed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.endpoints.life import (
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    TrafficMoved,
)
from orchestrator.core.errors import ServingError
from orchestrator.core.settings import RECONCILER, ReconcilerSettings
from orchestrator.core.spec.policy import Rollout
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.messages import PoolState
from tests.build import deployment
from tests.fakes import FakeClock
from tests.serving_fakes import FakeReplicas, MemoryEndpoints


class Bench:
    """An endpoint `chat` whose revision 1 is deployed."""

    def __init__(self, when: ReconcilerSettings = RECONCILER) -> None:
        self.clock = FakeClock(10.0)
        self.replicas = FakeReplicas()
        self.store = MemoryEndpoints()
        self.store.now = self.clock.now
        self.told: list[str] = []
        self.made = deployment("chat", fallbacks=("b", "c"))
        events = [RevisionAdded(1, self.made), RevisionReady(1), TrafficMoved({1: 100}, "first")]
        self.store.follow(self.store.endpoint("chat"), events, 1.0)
        self.replicas.there["chat.r1"] = self.made
        self.moved: list[tuple[str, str]] = []
        self.reconciler = Reconciler(
            (self.store, self.replicas, self.clock),
            self.told.append,
            lambda *to: self.moved.append(to),
            when=when,
        )

    def lose_pool(self) -> None:
        """Have the replicas gone, and a pool on which none can be anew."""
        self.replicas.there.clear()
        self.replicas.broken = {self.made.pool.name}

    def pass_time(self, seconds: int) -> None:
        """Look once a second."""
        for _ in range(seconds):
            self.reconciler.reconcile()
            self.clock.sleep(1.0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_the_replicas_that_answer_are_noted(bench: Bench) -> None:
    assert bench.reconciler.reconcile()
    assert bench.store.replicas() == {("chat", 1): ("http://chat.r1/chat.r1",)}
    assert bench.told == ["chat.r1 has 1 replicas"]
    bench.reconciler.reconcile()
    assert len(bench.told) == 1


def test_a_revision_that_is_gone_is_deployed_anew_after_a_moment(bench: Bench) -> None:
    bench.reconciler.reconcile()
    bench.replicas.there.clear()
    bench.reconciler.reconcile()
    assert bench.store.replicas() == {}
    assert bench.replicas.asked == {}
    bench.clock.sleep(6.0)
    bench.reconciler.reconcile()
    assert "chat.r1" in bench.replicas.there
    bench.reconciler.reconcile()
    assert bench.store.replicas() == {("chat", 1): ("http://chat.r1/chat.r1",)}


def test_what_can_not_be_deployed_anew_is_told_and_tried_again(bench: Bench) -> None:
    bench.lose_pool()
    for _ in range(3):
        bench.reconciler.reconcile()
        bench.clock.sleep(6.0)
    assert any("can't be deployed: no kernel" in line for line in bench.told)


def test_an_endpoint_whose_pool_is_lost_goes_to_the_next_one_once(bench: Bench) -> None:
    bench.lose_pool()
    bench.pass_time(60)
    assert bench.moved == [("chat", "b")]


def test_the_settings_say_how_soon_and_how_often_an_endpoint_is_moved() -> None:
    bench = Bench(ReconcilerSettings(loss=5.0, between_moves=40.0))
    bench.lose_pool()
    bench.pass_time(5)
    assert bench.moved == []
    bench.pass_time(1)
    assert len(bench.moved) == 1
    bench.pass_time(39)
    assert len(bench.moved) == 1
    bench.pass_time(2)
    assert len(bench.moved) == 2


def test_a_pool_on_which_a_replica_starts_is_lost_only_once_that_takes_too_long(
    bench: Bench,
) -> None:
    bench.replicas.state["chat.r1"] = PoolState.BUSY
    bench.replicas.starting = 1
    bench.pass_time(60)
    assert bench.moved == [], "a new replica loads its model"
    bench.clock.sleep(bench.made.endpoint.ready)
    bench.reconciler.reconcile()
    assert bench.moved == [("chat", "b")]


def lost_while_switched(bench: Bench, rules: Rollout) -> None:
    """Lose the pool of revision 1 while somebody has revision 2 deployed by `rules`."""
    second = deployment("chat", pool_name="b", revision=2, run="switch")
    second = replace(second, endpoint=replace(second.endpoint, rollout=rules))
    bench.store.follow(bench.store.endpoint("chat"), [RevisionAdded(2, second)], 2.0)
    bench.lose_pool()


def test_an_endpoint_that_somebody_switches_already_is_not_moved_beside_it(bench: Bench) -> None:
    lost_while_switched(bench, Rollout())
    bench.pass_time(120)
    assert bench.moved == [], "revision 2 is on its way"
    retired = RevisionRetired(2, "no kernel")
    bench.store.follow(bench.store.endpoint("chat"), [retired], bench.clock.now())
    bench.pass_time(1)
    assert bench.moved == [("chat", "b")]


def test_one_that_is_switched_by_nobody_any_more_is_moved_in_the_end(bench: Bench) -> None:
    lost_while_switched(bench, Rollout())
    bench.pass_time(30)
    bench.clock.sleep(bench.made.endpoint.ready)
    bench.pass_time(2)
    assert bench.moved == [("chat", "b")]


@pytest.mark.parametrize("rules", [Rollout(steps=()), Rollout(overflow=True)])
def test_what_takes_no_traffic_by_itself_keeps_no_endpoint_from_another_pool(
    bench: Bench, rules: Rollout
) -> None:
    lost_while_switched(bench, rules)
    bench.pass_time(30)
    assert bench.moved == [("chat", "b")]


def test_what_is_retired_is_removed_and_what_is_not_ours_is_left_alone(bench: Bench) -> None:
    bench.replicas.there["theirs.r7"] = deployment("theirs", revision=7)
    bench.store.follow(bench.store.endpoint("chat"), [RevisionRetired(1, "enough")], 2.0)
    assert not bench.reconciler.reconcile()
    assert list(bench.replicas.there) == ["theirs.r7"]


def test_after_the_last_endpoint_it_rests_a_while_before_it_says_that_there_is_none(
    bench: Bench,
) -> None:
    assert bench.reconciler.reconcile()
    bench.store.follow(bench.store.endpoint("chat"), [RevisionRetired(1, "enough")], 2.0)
    bench.clock.sleep(59.0)
    assert bench.reconciler.reconcile()
    bench.clock.sleep(1.0)
    assert not bench.reconciler.reconcile()


def test_a_cluster_that_does_not_answer_changes_nothing(bench: Bench) -> None:
    bench.reconciler.reconcile()
    bench.replicas.away = True
    with pytest.raises(ServingError):
        bench.reconciler.reconcile()
    assert bench.store.replicas() == {("chat", 1): ("http://chat.r1/chat.r1",)}


def test_an_endpoint_that_was_switched_goes_back_when_its_new_pool_is_lost(bench: Bench) -> None:
    second = deployment("chat", pool_name="b", revision=2)
    events = [RevisionAdded(2, second), RevisionReady(2), TrafficMoved({2: 100}, "switched")]
    events += [RevisionRetired(1, "switched")]
    bench.store.follow(bench.store.endpoint("chat"), events, 2.0)
    bench.replicas.there.clear()
    bench.replicas.broken = {"b"}
    bench.pass_time(60)
    assert bench.moved == [("chat", "a")]


@pytest.fixture
def sleeper(bench: Bench) -> Bench:
    """The same, and replicas that rest after 100 seconds; it is 50 seconds since the traffic."""
    bench.made = replace(bench.made, endpoint=replace(bench.made.endpoint, idle=100.0))
    bench.store.lives.clear()
    events = [RevisionAdded(1, bench.made), RevisionReady(1), TrafficMoved({1: 100}, "first")]
    bench.store.follow(bench.store.endpoint("chat"), events, bench.clock.now())
    bench.replicas.there["chat.r1"] = bench.made
    bench.clock.sleep(50.0)
    return bench


def test_an_endpoint_that_nobody_asks_rests_until_somebody_does(sleeper: Bench) -> None:
    sleeper.reconciler.reconcile()
    assert sleeper.store.replicas() != {}
    sleeper.clock.sleep(50.0)
    for _ in range(60):  # longer than until a pool counts as lost
        assert sleeper.reconciler.reconcile()
        sleeper.clock.sleep(1.0)
    assert (sleeper.replicas.there, sleeper.store.replicas(), sleeper.moved) == ({}, {}, [])
    assert [line for line in sleeper.told if "zero" in line] == [
        "chat.r1 is scaled to zero: nobody has asked for 100 s"
    ]
    sleeper.store.note_asked("chat")
    sleeper.reconciler.reconcile()
    sleeper.reconciler.reconcile()
    assert list(sleeper.replicas.there) == ["chat.r1"], "without waiting any longer"
    assert sleeper.store.replicas() != {}


def test_who_is_asked_does_not_rest_and_neither_does_who_is_being_replaced(
    sleeper: Bench,
) -> None:
    sleeper.store.note_asked("chat")
    sleeper.clock.sleep(99.0)
    sleeper.reconciler.reconcile()
    added = RevisionAdded(2, replace(sleeper.made, revision=2))
    sleeper.store.follow(sleeper.store.endpoint("chat"), [added], sleeper.clock.now())
    sleeper.clock.sleep(99.0)
    sleeper.reconciler.reconcile()
    assert "chat.r1" in sleeper.replicas.there


@pytest.mark.parametrize(("state", "seconds"), [(PoolState.DOWN, 30), (PoolState.BUSY, 115)])
def test_a_deployment_that_is_there_and_broken_is_deployed_anew_and_told(
    bench: Bench, state: PoolState, seconds: int
) -> None:
    ready = replace(bench.made.endpoint, ready=100.0)
    bench.made = replace(bench.made, fallbacks=(), endpoint=ready)
    bench.store.lives.clear()
    events = [RevisionAdded(1, bench.made), RevisionReady(1), TrafficMoved({1: 100}, "first")]
    bench.store.follow(bench.store.endpoint("chat"), events, 1.0)
    bench.replicas.state["chat.r1"] = state
    bench.pass_time(seconds - 15)
    assert bench.store.replicas() == {}
    bench.pass_time(15)
    assert "chat.r1 is broken: removed, and deployed anew" in bench.told
    bench.pass_time(10)
    assert bench.store.replicas() == {("chat", 1): ("http://chat.r1/chat.r1",)}
    assert bench.store.troubles() == {}


def test_what_stays_broken_is_tried_again_later_each_time_and_says_why(bench: Bench) -> None:
    bench.lose_pool()
    bench.pass_time(600)
    tries = [line for line in bench.told if "deployed anew" in line]
    assert 4 <= len(tries) <= 7
    assert bench.store.troubles() == {("chat", 1): "no kernel"}
    bench.replicas.broken = set()
    bench.pass_time(310)
    assert bench.store.troubles() == {}


def test_a_move_that_failed_is_tried_again_soon_and_to_the_next_pool(bench: Bench) -> None:
    bench.lose_pool()
    bench.pass_time(25)
    bench.reconciler.move_failed("chat")
    bench.pass_time(40)
    assert bench.moved == [("chat", "b"), ("chat", "c")]
