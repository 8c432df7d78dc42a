"""Reconcilers, homes and clusters side by side: none touches what is another's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.endpoints.life import (
    Deployment,
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    SharesMoved,
)
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.endpoints.rollout import Rollouts
from orchestrator.messages import PoolState, RevisionStatus, Succeeded
from tests.build import deployment
from tests.fakes import FakeClock
from tests.serving_fakes import FakeReplicas, FakeTraffic, MemoryEndpoints


def replicas_on(cluster: str) -> FakeReplicas:
    found = FakeReplicas()
    found.identity = cluster
    return found


def reconciler(
    store: MemoryEndpoints, replicas: FakeReplicas, clock: FakeClock, holder: str = "one"
) -> Reconciler:
    def never(*_: object) -> None:
        raise AssertionError

    return Reconciler((store, replicas, clock), lambda _: None, never, holder=holder)


def serve(store: MemoryEndpoints, made: Deployment, replicas: FakeReplicas | None) -> None:
    number = made.revision
    shares = SharesMoved({number: 100}, "first")
    events = [RevisionAdded(number, made), RevisionReady(number), shares]
    store.follow(store.endpoint(made.endpoint.name), events, 1.0)
    if replicas is not None:
        replicas.there[made.application] = made


def passes(some: Reconciler, clock: FakeClock, seconds: int) -> None:
    for _ in range(seconds):
        some.reconcile()
        clock.sleep(1.0)


def test_a_reconciler_of_another_cluster_neither_wipes_nor_deploys_what_it_does_not_see() -> None:
    store, clock = MemoryEndpoints(), FakeClock(10.0)
    a, b = replicas_on("a"), replicas_on("b")
    serve(store, replace(deployment("chat"), cluster="a"), a)
    passes(reconciler(store, a, clock), clock, 2)
    passes(reconciler(store, b, clock, "two"), clock, 60)
    assert store.replicas() == {("chat", 1): ("http://chat.r1/chat.r1",)}
    assert (b.asked, b.there) == ({}, {})


def test_what_another_cluster_has_retired_is_not_removed_here() -> None:
    store, clock = MemoryEndpoints(), FakeClock(10.0)
    a, b = replicas_on("a"), replicas_on("b")
    made = replace(deployment("chat"), cluster="a")
    serve(store, made, a)
    b.there["chat.r1"] = made  # one of the same name
    store.follow(store.endpoint("chat"), [RevisionRetired(1, "enough")], 2.0)
    passes(reconciler(store, b, clock, "two"), clock, 3)
    assert list(b.there) == ["chat.r1"]
    passes(reconciler(store, a, clock), clock, 3)
    assert a.there == {}


def test_of_two_reconcilers_of_a_cluster_one_acts_until_it_is_gone() -> None:
    store, clock, here = MemoryEndpoints(), FakeClock(10.0), replicas_on("a")
    serve(store, replace(deployment("chat"), cluster="a"), None)
    first, second = (reconciler(store, here, clock, name) for name in ("one", "two"))
    assert first.reconcile()
    assert second.reconcile(), "who does not lead may not end what serves"
    assert (first.leads, second.leads) == (True, False)
    passes(second, clock, 30)
    assert here.there == {}
    store.leases.clear()
    passes(second, clock, 30)
    assert list(here.there) == ["chat.r1"]
    first.reconcile()
    assert not first.leads


def test_two_homes_on_one_cluster_that_deploy_the_same_do_not_collide() -> None:
    here, clock = replicas_on("ray"), FakeClock(10.0)
    for home in ("aaaa", "bbbb"):
        store = MemoryEndpoints()
        rollouts = Rollouts(here, store, FakeTraffic(), clock, home)
        asked = deployment("r2", run=f"run-{home}")
        rollouts.start(asked)
        said = [m for _ in range(4) if not clock.sleep(1.0) for m in rollouts.poll(asked.key)]
        assert isinstance(said[-1], Succeeded)
        life = store.endpoint("r2")
        assert life.leading is not None
        assert life.leading.deployment is not None
        assert (life.leading.deployment.cluster, life.leading.deployment.name) == ("ray", "r2.r1")
        passes(reconciler(store, here, clock), clock, 30)
    assert sorted(here.there) == ["aaaa-r2.r1", "bbbb-r2.r1"]


def test_what_the_first_version_has_stored_is_kept_by_the_home_whose_database_it_is() -> None:
    store, clock, here = MemoryEndpoints(), FakeClock(10.0), replicas_on("home-1")
    serve(store, deployment("chat"), None)
    shared = Reconciler(
        (store, here, clock), lambda _: None, lambda *_: None, holder="two", adopts=False
    )
    passes(shared, clock, 30)
    assert here.there == {}
    store.leases.clear()
    passes(reconciler(store, here, clock), clock, 30)
    assert list(here.there) == ["chat.r1"]


class Pair(FakeReplicas):
    """Two replicas of each revision, in whatever order Serve tells them."""

    urls: tuple[str, ...] = ("http://a", "http://b")

    def live(self) -> Mapping[str, RevisionStatus]:
        statuses = super().live().items()
        return {name: replace(status, urls=self.urls) for name, status in statuses}


def test_the_order_of_replicas_is_no_news() -> None:
    store, here = MemoryEndpoints(), Pair()
    here.identity = "a"
    serve(store, replace(deployment("chat"), cluster="a"), here)
    told: list[str] = []
    some = Reconciler((store, here, FakeClock(10.0)), told.append, lambda *_: None)
    for urls in (("http://b", "http://a"), ("http://a", "http://b"), ("http://b", "http://a")):
        here.urls = urls
        some.reconcile()
    assert told == ["chat.r1 has 2 replicas"]
    assert store.replicas() == {("chat", 1): ("http://a", "http://b")}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c"]),  # the cluster of a revision
            st.sampled_from(["ready", "retired", "starting"]),
            st.booleans(),  # whether Serve has it
            st.sampled_from([None, PoolState.DOWN, PoolState.BUSY]),
        ),
        max_size=8,
    )
)
def test_a_reconciler_never_changes_or_removes_what_is_not_of_its_cluster(
    endpoints: list[tuple[str, str, bool, PoolState | None]],
) -> None:
    store, clock = MemoryEndpoints(), FakeClock(10.0)
    clusters = {name: replicas_on(name) for name in ("a", "b", "c")}
    for number, (cluster, state, there, broken) in enumerate(endpoints):
        made = replace(deployment(f"e{number}", run=f"run-{number}"), cluster=cluster)
        events: list[object] = [RevisionAdded(1, made)]
        events += [RevisionReady(1), SharesMoved({1: 100}, "first")] if state != "starting" else []
        events += [RevisionRetired(1, "enough")] if state == "retired" else []
        store.follow(store.endpoint(f"e{number}"), events, 1.0)  # type: ignore[arg-type]
        store.note_replicas(f"e{number}", 1, (f"http://noted-{number}",))
        if there:
            for one in clusters.values():  # each has one of this name
                one.there[made.application] = made
        if broken:
            clusters["a"].state[made.application] = broken
    events_before = {name: life.seq for name, life in store.endpoints().items()}
    noted = store.replicas()
    others = {name: dict(clusters[name].there) for name in ("b", "c")}
    some = Reconciler((store, clusters["a"], clock), lambda _: None, lambda *_: None, adopts=False)
    passes(some, clock, 40)
    assert {name: life.seq for name, life in store.endpoints().items()} == events_before
    assert others == {name: clusters[name].there for name in ("b", "c")}
    for number, (cluster, _, there, _) in enumerate(endpoints):
        if cluster != "a":
            assert store.replicas()[f"e{number}", 1] == noted[f"e{number}", 1]
            assert (f"e{number}.r1" in clusters["a"].there) == there
