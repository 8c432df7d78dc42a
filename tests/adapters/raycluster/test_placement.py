"""What an attempt waits for, when it asks anew and what is refused, by the nodes that live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.raycluster import placement, process
from orchestrator.adapters.raycluster.nodes import SECONDS_OF_A_LOOK, ClusterNodes
from orchestrator.adapters.raycluster.placement import Placement
from orchestrator.adapters.rayqueries import tables
from orchestrator.adapters.rayqueries.tables import Group, Node
from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, Waiting
from tests.build import pool
from tests.clusters import NPU, request
from tests.fakes import FakeClock

WIDE = pool("wide", chip=NPU, nodes=3, devices_per_node=2, cpus_per_node=4)
SOON = 1.0


class Scene:
    """A cluster of three declared nodes of two chips, with what lives and what was asked of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *live: Node) -> None:
        self.clock = FakeClock(100.0)
        self.alive: list[Node] = list(live)
        self.nodes = ClusterNodes(self.clock.now, lambda: self.alive, dict)
        self.groups: list[tuple[int, dict[str, str]]] = []
        self.state = "PENDING"
        self.scheduling = "NO_RESOURCES"
        monkeypatch.setattr(placement, "placement_group", self._ask)
        monkeypatch.setattr(tables, "group", self._group)
        monkeypatch.setattr(process, "end_group", lambda _name: None)

    def place(self, asked: AttemptRequest) -> Placement:
        return Placement(asked, self.nodes, {}, now=self.clock.now)

    def after(self, seconds: float, place: Placement) -> Sequence[Waiting | Failed]:
        self.clock.sleep(seconds)
        return place.news()

    def _ask(self, bundles: list[object], **options: Any) -> object:
        self.groups.append((len(bundles), options["bundle_label_selector"][0]))
        return object()

    def _group(self, _handle: object) -> Group:
        return Group("of an attempt", self.state, self.scheduling, ())


def node(number: int, *, life: int = 1, free: float = 0.0) -> Node:
    total = {"CPU": 4.0, "NPU": 2.0}
    labels = {"pool": "wide"}
    return Node(f"id{number}.{life}", f"n{number}", "h", 1, labels, total, {**total, "NPU": free})


def gang(workers: int, *, least: int | None = None, avoid: tuple[str, ...] = ()) -> AttemptRequest:
    needs = Needs(workers=workers, min_workers=least)
    return replace(request("succeed", "gang", on=WIDE, needs=needs), avoid=avoid)


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


def test_a_node_that_reboots_is_waited_for_with_what_there_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, node(1), node(2))
    place = scene.place(gang(6))

    assert scene.groups == [(6, {"pool": "wide"})], "so that a node may be started"
    reason = "can't give 6 x (1 CPU, 1 NPU) now: its 2 live nodes have 8 CPU, 4 NPU"
    assert place.news() == [Waiting(f"pool 'wide' {reason}")]
    assert scene.after(SOON, place) == []
    scene.alive.append(node(3))
    scene.state = "CREATED"
    assert scene.after(SOON, place) == []
    assert place.anew() is None


def test_a_pool_that_has_no_node_yet_is_asked_for_as_it_is_declared(empty: Scene) -> None:
    place = empty.place(gang(8, least=2))

    assert empty.groups == [(6, {"pool": "wide"})]
    none = "pool 'wide' has no live node: none carries the labels 'pool=wide'"
    assert place.news() == [Waiting(none)]
    empty.alive = [node(1, free=2.0)]
    empty.after(PATIENT.shrink, place)
    again = place.anew()
    assert again is not None
    assert again.needs.workers == 2, "an elastic gang goes on with the first that come"


def test_what_the_declared_nodes_can_not_hold_is_refused_at_once(empty: Scene) -> None:
    place = empty.place(gang(7))

    (refused,) = place.news()
    assert isinstance(refused, Failed)
    assert empty.groups == []
    told = "can't give 7 x (1 CPU, 1 NPU): its 3 declared nodes have 12 CPU, 6 NPU"
    assert refused.failure.evidence == f"pool 'wide' {told}"


def test_a_busy_pool_is_told_as_a_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, node(1), node(2), node(3))
    place = scene.place(gang(6))

    busy = "pool 'wide' is busy: 6 x (1 CPU, 1 NPU) is not free"
    assert place.news() == [Waiting(busy, queued=True)]
    scene.alive.pop()
    (lacking,) = scene.after(SOON, place)
    assert isinstance(lacking, Waiting)
    assert not lacking.queued, "a node went while it waited"


def test_nodes_to_avoid_are_named_while_another_may_come_and_used_when_none_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, node(1, free=2.0))
    place = scene.place(gang(2, avoid=("n1",)))

    assert scene.groups[-1][1] == {"pool": "wide", placement.NODE_ID: "!in(id1.1)"}
    (waiting,) = place.news()
    assert "has no live node: none but 'n1', which it avoids, carries" in str(waiting)
    assert place.anew() is None
    back = "pool 'wide': no node but 'n1' came within 60 s: goes back there"
    assert scene.after(PATIENT.avoid + 1.0, place) == [Waiting(back)]
    again = place.anew()
    assert again is not None
    assert again.avoid == ()


def test_the_run_says_how_long_a_place_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, node(1, free=2.0))
    waits = AttemptSettings(avoid=5.0, shrink=1000.0)
    place = scene.place(replace(gang(2, least=1, avoid=("n1",)), waits=waits))
    place.news()
    assert scene.after(4.0, place) == []
    back = "pool 'wide': no node but 'n1' came within 5 s: goes back there"
    assert scene.after(2.0, place) == [Waiting(back)]

    wide = scene.place(replace(gang(6, least=1), waits=waits))
    scene.after(PATIENT.shrink + 1.0, wide)
    assert wide.anew() is None, "it waits for all"


def test_a_node_to_avoid_that_was_rebooted_is_avoided_under_its_new_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scene = Scene(monkeypatch, node(2))
    place = scene.place(gang(2, avoid=("n1",)))
    place.news()
    assert place.anew() is None
    scene.alive.append(node(1, life=2))
    scene.clock.sleep(SECONDS_OF_A_LOOK)

    assert place.anew() == place.request
    assert scene.place(place.request)
    assert scene.groups[-1][1][placement.NODE_ID] == "!in(id1.2)"


@given(
    workers=st.integers(1, 6),
    least=st.none() | st.integers(1, 6),
    live=st.sets(st.integers(1, 3)),
    avoid=st.sets(st.sampled_from(["n1", "n2", "n3", "elsewhere"])),
)
def test_whatever_is_to_be_avoided_and_whatever_lives_nothing_that_fits_the_plan_is_refused(
    workers: int, least: int | None, live: set[int], avoid: set[str]
) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        scene = Scene(monkeypatch, *(node(number, free=2.0) for number in sorted(live)))
        least = min(least, workers) if least else None
        place = scene.place(gang(workers, least=least, avoid=tuple(sorted(avoid))))
        said = [*place.news()]
        for _ in range(3):
            asked = place.anew()
            place = scene.place(asked) if asked else place
            said += scene.after(PATIENT.avoid, place)
        rest = scene.alive = [node(number, free=2.0) for number in (1, 2, 3)]
        scene.clock.sleep(PATIENT.avoid)
        asked = place.anew()
        place = scene.place(asked) if asked else place

        assert not any(isinstance(one, Failed) for one in said)
        usable = [one for one in rest if one.name not in place.request.avoid]
        assert 2 * len(usable) >= place.request.needs.workers, "it has room in the whole pool"


def test_nodes_are_asked_for_once_a_turn_and_names_once_for_all() -> None:
    clock, asked, named = FakeClock(100.0), [], []

    def ask() -> list[Node]:
        asked.append(clock.now())
        return [node(1)]

    def names() -> dict[str, str]:
        named.append(clock.now())
        return {"dead": "n9"}

    nodes = ClusterNodes(clock.now, ask, names)
    for _ in range(2048):
        assert nodes.alive() == {"id1.1"}
        assert nodes.name("id1.1") == "n1"
        assert nodes.name("dead") == "n9"
        assert nodes.name("unknown") == "unknown"
    assert (len(asked), len(named)) == (1, 2)
    clock.sleep(SECONDS_OF_A_LOOK)
    nodes.live()
    assert len(asked) == 2


def test_a_node_that_is_drained_is_used_by_no_means(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(monkeypatch, node(1, free=2.0))
    place = scene.place(replace(gang(2, avoid=("n2",)), drained=("n1",)))

    assert scene.groups[-1][1] == {"pool": "wide", placement.NODE_ID: "!in(id1.1)"}
    (waiting,) = place.news()
    assert "none but 'n2', 'n1', which it avoids, carries" in str(waiting)
    assert scene.after(PATIENT.avoid + 1.0, place) == []
    assert place.anew() is None
    scene.alive.append(node(3, free=2.0))
    scene.state = "CREATED"
    assert scene.after(SOON, place) == []
