"""What every store of endpoints must do."""

from __future__ import annotations

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.api_keys import ApiKey, Requirement
from orchestrator.core.endpoints.life import (
    RevisionAdded,
    RevisionReady,
    RevisionState,
    RevisionUpdated,
    TrafficMoved,
)
from orchestrator.core.errors import ConflictError, NotFoundError, StoreError
from tests.build import deployment
from tests.contracts.test_database import store  # noqa: F401 - a fixture

SECONDS = 30.0


def test_an_endpoint_comes_back_as_its_events_made_it(store: SqlDatabase) -> None:  # noqa: F811 - the fixture
    one = deployment("chat", pool_name="ascend", revision=1)
    assert store.endpoint("chat").revisions == {}
    store.follow(store.endpoint("chat"), [RevisionAdded(1, one), RevisionReady(1)], 5.0)
    store.follow(store.endpoint("chat"), [TrafficMoved({1: 100}, "the first")], 6.0)
    found = store.endpoints()["chat"]
    assert found == store.endpoint("chat")
    assert (found.seq, found.shares) == (3, {1: 100})
    assert found.revisions[1].deployment == one
    assert (found.revisions[1].state, found.revisions[1].since) == (RevisionState.READY, 5.0)


def test_a_model_that_was_put_in_the_place_of_another_comes_back(
    store: SqlDatabase,  # noqa: F811 - as above
) -> None:
    model = ArtifactRef("file:///artifacts/new", "1" * 64, 20)
    events = [RevisionAdded(1, deployment("chat")), RevisionReady(1)]
    store.follow(store.endpoint("chat"), [*events, RevisionUpdated(1, model, "chat/2")], 5.0)
    found = store.endpoint("chat").revisions[1]
    assert found.deployment == deployment("chat", model=model, version="chat/2")
    assert found.updated == 5.0


def test_of_two_who_change_an_endpoint_one_is_stale(store: SqlDatabase) -> None:  # noqa: F811 - as above
    seen = store.endpoint("chat")
    store.follow(seen, [RevisionAdded(1, deployment("chat"))], 5.0)
    with pytest.raises(ConflictError, match="'chat' was changed"):
        store.follow(seen, [RevisionAdded(1, deployment("chat"))], 6.0)


def test_replicas_are_those_that_were_noted_last(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.note_replicas("chat", 1, ["http://a:1/chat.r1", "http://b:1/chat.r1"])
    store.note_replicas("chat", 2, ["http://c:1/chat.r2"])
    store.note_replicas("chat", 1, ["http://b:1/chat.r1"])
    store.note_replicas("chat", 2, [])
    store.note_replicas("other", 1, ["http://b:1", "http://a:1"])
    assert store.replicas().pop(("other", 1)) == ("http://a:1", "http://b:1")
    store.note_replicas("other", 1, [])
    assert store.replicas() == {("chat", 1): ("http://b:1/chat.r1",)}


def test_a_key_has_one_name_until_it_is_revoked(store: SqlDatabase) -> None:  # noqa: F811 - as above
    key = ApiKey(name="ann", digest="aa", models=("chat",), requests=60)
    store.add_key(key)
    with pytest.raises(StoreError, match="there is a key 'ann'"):
        store.add_key(key)
    assert store.api_keys() == [key]
    store.drop_key("ann")
    with pytest.raises(NotFoundError, match="no key 'ann'; there are: none"):
        store.drop_key("ann")


def test_keys_are_asked_for_from_the_first_on_until_that_is_taken_back(
    store: SqlDatabase,  # noqa: F811 - as above
) -> None:
    assert store.key_rules().required is Requirement.UNKNOWN
    store.add_key(ApiKey(name="ann", digest="aa"))
    store.drop_key("ann")
    assert store.key_rules().required is Requirement.ON
    store.require_keys(on=False)
    assert store.key_rules().required is Requirement.OFF
    store.add_key(ApiKey(name="ann", digest="aa"))
    assert store.key_rules().required is Requirement.ON, "the first key asks for itself"
    store.require_keys(on=False)
    store.add_key(ApiKey(name="bob", digest="bb"))
    assert store.key_rules().required is Requirement.OFF


def test_each_change_of_the_keys_leaves_a_stamp_of_its_own(
    store: SqlDatabase,  # noqa: F811 - as above
) -> None:
    stamps = [store.key_rules().stamp]
    for change in (
        lambda: store.add_key(ApiKey(name="ann", digest="aa")),
        lambda: store.require_keys(on=True),
        lambda: store.drop_key("ann"),
        lambda: store.add_key(ApiKey(name="ann", digest="aa")),
    ):
        change()
        stamps.append(store.key_rules().stamp)
        assert store.key_rules().stamp == stamps[-1]
    assert len(set(stamps)) == len(stamps)


def test_when_somebody_asked_last_is_known(store: SqlDatabase) -> None:  # noqa: F811 - as above
    assert store.idle_seconds() == {}
    store.note_asked("chat")
    store.note_asked("chat")
    (age,) = store.idle_seconds().values()
    assert 0.0 <= age < SECONDS


def test_of_two_who_want_a_cluster_one_holds_the_lease_until_it_is_old(
    store: SqlDatabase,  # noqa: F811 - as above
) -> None:
    assert store.hold("a", "one", 60.0)
    assert not store.hold("a", "two", 60.0)
    assert store.hold("b", "two", 60.0)
    assert store.hold("a", "one", 60.0), "renewed"
    assert store.hold("a", "two", -1.0), "an old one is taken over"
    assert not store.hold("a", "one", 60.0)


def test_why_a_revision_has_no_replica_is_known_until_it_has(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.note_trouble("chat", 1, "no kernel")
    store.note_trouble("chat", 1, "no room")
    assert store.troubles() == {("chat", 1): "no room"}
    store.note_trouble("chat", 1, "")
    assert store.troubles() == {}
