"""The gateway's table is what the store says, and stands while the store is away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from orchestrator.adapters.clock import SystemClock
from orchestrator.core.endpoints.api_keys import ApiKey, KeyRules, Requirement
from orchestrator.core.endpoints.life import (
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    RevisionUpdated,
    TrafficMoved,
)
from orchestrator.core.errors import ServingError, StoreError
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.serving.gateway import route_table
from orchestrator.serving.gateway.route_table import SECONDS_BETWEEN_READS, StoreRoutes
from orchestrator.serving.gateway.routes import Far, RevisionRoute
from orchestrator.supervisor.record import wait
from tests.build import deployment
from tests.serving_fakes import MemoryEndpoints, MemoryKeys

SECONDS = 5.0
CLOCK = SystemClock()


class Store(MemoryKeys, MemoryEndpoints):
    """A store that may be away, or fail in a way that nobody thought of."""

    away = False
    broken = False

    def replicas(self) -> dict[tuple[str, int], tuple[str, ...]]:
        if self.away:
            raise StoreError("disk is full")
        if self.broken:
            raise KeyError("chat")
        return dict(self.noted)

    far_key: str | None = "sk-far"

    def key_of(self, server: Outside) -> str:
        if self.far_key is None:
            raise ServingError(f"the variable {server.key_variable!r} is empty")
        return self.far_key


@pytest.fixture
def store() -> Store:
    """An endpoint with one revision on pool `a`, one outside, and one that takes nothing."""
    made = Store()
    one = deployment("chat", token="t1")  # noqa: S106 - a test's own
    limited = replace(one, endpoint=replace(one.endpoint, sticky="session", queue=3))
    far = Outside(address="http://far:9000/v1/", model="llama", key_variable="FAR_KEY")
    events = [
        RevisionAdded(1, limited),
        RevisionReady(1),
        RevisionAdded(2, outside=far),
        RevisionReady(2),
        RevisionAdded(3, deployment("chat", revision=3)),
        RevisionReady(3),
        TrafficMoved({1: 90, 2: 10}, "canary", overflow=2),
    ]
    made.follow(made.endpoint("chat"), events, 1.0)
    made.note_replicas("chat", 1, ["http://a:1/chat.r1", "http://b:1/chat.r1"])
    return made


@pytest.fixture
def routes(store: Store) -> Iterator[StoreRoutes]:
    made = StoreRoutes(store, store.key_of, CLOCK)
    yield made
    made.close()


def test_a_route_has_the_revisions_that_take_traffic_and_where_they_answer(
    routes: StoreRoutes,
) -> None:
    route = routes.table().endpoints["chat"]
    urls = ("http://a:1/chat.r1", "http://b:1/chat.r1")
    ours = RevisionRoute(
        name="r1",
        pool="a",
        share=90,
        urls=urls,
        token="t1",  # noqa: S106 - as above
        devices=1,
        version=deployment("chat").weights,
    )
    theirs = RevisionRoute(
        name="r2",
        pool="outside",
        share=10,
        urls=("http://far:9000",),
        model="llama",
        far=Far(headers=(("authorization", "Bearer sk-far"),)),
    )
    assert route.revisions == (ours, theirs)
    assert (route.sticky, route.queue, route.overflow) == ("session", 3, "r2")
    assert route.created == 1


def test_what_changes_is_seen_and_an_endpoint_without_revisions_is_gone(
    store: Store, routes: StoreRoutes
) -> None:
    store.note_replicas("chat", 1, ["http://b:1/chat.r1"])
    seen = routes.table
    assert wait(lambda: len(seen().endpoints["chat"].revisions[0].urls) == 1, SECONDS)
    update = RevisionUpdated(1, deployment("chat").model, "chat model/7")
    store.follow(store.endpoint("chat"), [update], 1.5)
    assert wait(lambda: seen().endpoints["chat"].revisions[0].version == "chat%20model/7", SECONDS)
    gone = [
        TrafficMoved({1: 100}, ""),
        RevisionRetired(2, ""),
        RevisionRetired(3, ""),
        RevisionRetired(1, ""),
    ]
    store.follow(store.endpoint("chat"), gone, 2.0)
    assert wait(lambda: not seen().endpoints, SECONDS)


def test_while_the_store_is_away_the_last_table_stands(store: Store, routes: StoreRoutes) -> None:
    before = routes.table()
    store.away = True
    store.note_replicas("chat", 1, [])
    assert not wait(lambda: routes.table() != before, 0.6)
    store.away = False
    assert wait(lambda: routes.table().endpoints["chat"].revisions[0].urls == (), SECONDS)


def test_the_table_is_read_again_after_whatever_went_wrong_and_its_age_says_so(
    store: Store, routes: StoreRoutes, caplog: pytest.LogCaptureFixture
) -> None:
    store.broken = True
    assert wait(lambda: routes.age() > 4 * SECONDS_BETWEEN_READS, SECONDS)
    told = [r.getMessage() for r in caplog.records if r.name == route_table.__name__]
    assert told == ["the last routes stand: KeyError: 'chat'"], "once, though it failed often"
    store.broken = False
    store.note_replicas("chat", 1, [])
    assert wait(lambda: routes.table().endpoints["chat"].revisions[0].urls == (), SECONDS)
    assert wait(lambda: routes.age() < 2 * SECONDS_BETWEEN_READS, SECONDS)


def test_it_is_noted_that_somebody_asks_while_they_do(store: Store, routes: StoreRoutes) -> None:
    assert not routes.table().endpoints["chat"].rests
    store.now = CLOCK.monotonic
    with routes.asking("chat"):
        assert wait(lambda: "chat" in store.last, SECONDS)
        first = store.last["chat"]
        assert wait(lambda: store.last["chat"] > first, SECONDS), "for a long answer too"


def test_keys_are_read_again_only_when_one_has_changed(store: Store, routes: StoreRoutes) -> None:
    store.add_key(ApiKey(name="ann", digest="aa"))
    assert wait(lambda: list(routes.table().keys) == ["aa"], SECONDS)
    before = store.key_reads
    store.note_replicas("chat", 1, ["http://c:1/chat.r1"])
    assert wait(lambda: "http://c:1" in str(routes.table()), SECONDS)
    assert store.key_reads == before
    store.drop_key("ann")
    assert wait(lambda: not routes.table().keys, SECONDS)
    assert routes.table().required is Requirement.ON


def test_a_database_that_is_emptied_does_not_open_a_gateway_that_asked_for_keys(
    store: Store, routes: StoreRoutes
) -> None:
    store.add_key(ApiKey(name="ann", digest="aa"))
    assert wait(lambda: routes.table().required is Requirement.ON, SECONDS)
    store.keys, store.rules = {}, KeyRules()
    assert wait(lambda: not routes.table().keys, SECONDS)
    assert routes.table().required is Requirement.ON
    store.require_keys(on=False)
    assert wait(lambda: routes.table().required is Requirement.OFF, SECONDS)


def _far_token(routes: StoreRoutes) -> str:
    far = routes.table().endpoints["chat"].revisions[1].far
    assert far is not None
    return dict(far.headers)["authorization"].removeprefix("Bearer ")


def test_the_key_of_a_server_outside_is_read_anew_and_the_last_stands_while_it_is_not_there(
    store: Store, routes: StoreRoutes, caplog: pytest.LogCaptureFixture
) -> None:
    store.far_key = "sk-new"
    assert wait(lambda: _far_token(routes) == "sk-new", SECONDS)
    with caplog.at_level("WARNING"):
        store.far_key = None
        assert wait(lambda: bool(caplog.records), SECONDS)
        before = routes.table()
        assert wait(lambda: routes.table() is not before, SECONDS)
    assert _far_token(routes) == "sk-new"
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["the last key of http://far:9000/v1/ stands: the variable 'FAR_KEY' is empty"]


def test_a_dead_server_outside_gets_nothing_while_others_answer_and_all_where_none_does(
    store: Store, routes: StoreRoutes
) -> None:
    def far() -> RevisionRoute:
        return routes.table().endpoints["chat"].revisions[1]

    store.note_trouble("chat", 2, "no server answers")
    assert wait(lambda: (far().share, far().urls) == (0, ()), SECONDS)
    store.note_replicas("chat", 1, ())
    assert wait(lambda: (far().share, far().urls) == (10, ("http://far:9000",)), SECONDS)
    store.note_replicas("chat", 1, ["http://a:1/chat.r1"])
    store.note_trouble("chat", 1, "those of ours are known by their replicas")
    store.note_trouble("chat", 2, "")
    assert wait(lambda: len(routes.table().endpoints["chat"].revisions[0].urls) == 1, SECONDS)
    assert [r.share for r in routes.table().endpoints["chat"].revisions] == [90, 10]
