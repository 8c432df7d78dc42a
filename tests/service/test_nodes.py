"""Which node of which pool is meant, and which come out of quarantine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.errors import NotFoundError
from orchestrator.core.runs.fleet_on_cluster import FleetOnCluster
from orchestrator.core.settings import ClusterSettings, Settings
from orchestrator.messages import NodeStatus, PoolState, PoolStatus
from orchestrator.service import pools
from orchestrator.service.pools import PoolOrNode, PoolStates, place_of, use_again
from tests.build import bindings, fleet, pipeline, pool
from tests.memory import MemoryStore

SETTINGS = Settings(pipeline=pipeline(), fleet=fleet(pool("a"), pool("b")), bindings=bindings())
LIVE = {
    "a": PoolStatus(name="a", state=PoolState.UP),
    "b": PoolStatus(
        name="b", state=PoolState.UP, members=(NodeStatus(name="n1", devices=8, free=3),)
    ),
}


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SqlDatabase:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.setattr(wiring, "pool_states", lambda *_: LIVE)
    return wiring.database(wiring.home())


def cluster_settings(address: str) -> Settings:
    return replace(SETTINGS, cluster=ClusterSettings(address=address))


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (("a",), PoolOrNode("test", "a")),
        (("a", "n9"), PoolOrNode("test", "a", "n9")),
        (("n1",), PoolOrNode("test", "b", "n1")),
        (("n7",), PoolOrNode("test", "a", "n7")),
    ],
)
def test_a_node_is_named_alone_where_it_lives_or_is_not_used(
    store: SqlDatabase, name: tuple[str, ...], meant: PoolOrNode
) -> None:
    store.drain_node("test/a", "n7", "repair")
    assert replace(place_of(SETTINGS, *name), cluster="") == meant


def test_a_node_of_a_cluster_is_not_used_by_any_fleet_there(store: SqlDatabase) -> None:
    there = cluster_settings("head:6379")
    pools.drain(place_of(there, "b", "n1"), "repair").make()
    assert [(u.pool, u.node) for u in store.unused_nodes()] == [("test@head/b", "n1")]
    team = replace(there, fleet=replace(there.fleet, name="team"))
    elsewhere = replace(cluster_settings("http://other:8265"), fleet=team.fleet)
    assert [(u.pool, u.node) for u in pools.pools(team).unused] == [("b", "n1")]
    assert pools.pools(elsewhere).unused == []
    assert not pools.undrain(place_of(elsewhere, "b", "n1")).make()
    assert pools.undrain(place_of(team, "b", "n1")).make()
    assert store.unused_nodes() == []


@pytest.mark.parametrize(
    "name",
    [("n2",), ("a/",), ("c", "n1"), ("a", "../x"), ("a", ".."), ("a", "n 1"), ("a", "n1/n2")],
)
def test_what_is_neither_is_refused_with_what_there_is(
    store: SqlDatabase, name: tuple[str, ...]
) -> None:
    with pytest.raises(NotFoundError, match=r"pools of this fleet: a, b; a node is named as it"):
        place_of(SETTINGS, *name)


def test_a_node_is_drained_and_used_again_whatever_kept_it(store: SqlDatabase) -> None:
    node = PoolOrNode("test", "b", "n1")
    pools.drain(node, "repair").make()
    assert [(u.pool, u.node, u.until) for u in store.unused_nodes()] == [("test/b", "n1", None)]
    pools.undrain(node).make()
    store.quarantine("test/b", "n1", "Xid 79", 60.0)
    pools.undrain(node).make()
    assert store.unused_nodes() == []
    assert store.drained() == {}


def test_it_is_told_whether_anything_kept_it_from_work(store: SqlDatabase) -> None:
    node, pool_b = PoolOrNode("test", "b", "n1"), PoolOrNode("test", "b")
    assert not pools.undrain(node).make()
    assert not pools.undrain(pool_b).make()
    store.quarantine("test/b", "n1", "Xid 79", 60.0)
    pools.drain(pool_b, "repair").make()
    assert pools.undrain(node).make()
    assert pools.undrain(pool_b).make()


def test_a_node_that_does_not_live_is_told_with_those_that_do(
    store: SqlDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pools.others_live(SETTINGS, PoolOrNode("test", "b", "n9")) == ["n1"]
    assert pools.others_live(SETTINGS, PoolOrNode("test", "b", "n1")) is None
    assert pools.others_live(SETTINGS, PoolOrNode("test", "b")) is None
    monkeypatch.setattr(wiring, "pool_states", lambda *_: {})
    assert pools.others_live(SETTINGS, PoolOrNode("test", "b", "n9")) is None


def test_the_health_of_a_node_is_what_keeps_it_from_work(store: SqlDatabase) -> None:
    store.quarantine("b", "n1", "Xid 79", 7200.0)
    store.drain_node("b", "n2", "repair")
    known = PoolStates(SETTINGS.fleet, LIVE, {}, (), store.now(), unused=store.unused_nodes())
    assert known.health("b", "n1") == "in quarantine for 2.0 h: Xid 79"
    assert known.health("b", "n2") == "being emptied: repair (away)"
    assert replace(known, unused=()).health("b", "n1") == "up"
    assert known.health("a", "n3") == "away"


def test_a_node_that_was_found_sound_comes_out_of_quarantine_but_is_drained_still() -> None:
    store = MemoryStore()
    for node in ("n1", "n2"):
        store.quarantine("test/a", node, "Xid 79", 60.0)
    store.quarantine("other@head/a", "n1", "Xid 79", 60.0)
    store.drain_node("test/a", "n3", "repair")
    here = FleetOnCluster("test", "head")
    assert use_again(store, here, "a", ["n1", "n3"], drained=False)
    assert [unused.node for unused in store.unused_nodes()] == ["n2", "n3"]
