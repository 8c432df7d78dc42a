"""What an attempt waits for, when it asks anew and what is refused, by the nodes that live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.adapters.raycluster import placement
from orchestrator.adapters.raycluster.nodes import SECONDS_OF_A_LOOK, ClusterNodes
from orchestrator.adapters.raycluster.placement import Placement, PlacementGroups, free_room
from orchestrator.adapters.rayqueries.cluster_tables import Group, Node
from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, Failed, Waiting
from tests.build import pool
from tests.clusters import NPU, request
from tests.fakes import FakeClock

WIDE = pool("wide", chip=NPU, nodes=3, devices_per_node=2, cpus_per_node=4)
SOON = 1.0


class Scene(PlacementGroups):
    """A cluster of three declared nodes of two chips, with what lives and what was asked of it."""

    def __init__(self, *live: Node) -> None:
        self.clock = FakeClock(100.0)
        self.alive: list[Node] = list(live)
        self.nodes = ClusterNodes(self.clock.now, lambda: self.alive, dict)
        self.groups: list[tuple[list[float], dict[str, str]]] = []  # chips of each bundle
        self.strategy = ""
        self.stands = "PENDING"
        self.scheduling = "NO_RESOURCES"
        self.ended: list[str] = []

    def place(self, asked: AttemptRequest) -> Placement:
        return Placement(asked, self.nodes, {}, now=self.clock.now, groups=self)

    def after(self, seconds: float, place: Placement) -> Sequence[Waiting | Failed]:
        self.clock.sleep(seconds)
        return place.news()

    def ask(self, bundles: list[dict[str, float]], **options: Any) -> object:
        selectors = options["bundle_label_selector"]
        assert len(selectors) == len(bundles)
        self.groups.append(([bundle.get("NPU", 0.0) for bundle in bundles], selectors[0]))
        self.strategy = options["strategy"]
        return object()

    def end(self, name: str) -> None:
        self.ended.append(name)

    def state(self, _handle: object) -> Group:
        return Group("of an attempt", self.stands, self.scheduling, ())


def node(number: int, *, life: int = 1, free: float = 0.0, chips: float = 2.0) -> Node:
    total = {"CPU": 4.0, "NPU": chips}
    labels = {"pool": "wide"}
    return Node(f"id{number}.{life}", f"n{number}", "h", 1, labels, total, {**total, "NPU": free})


def gang(workers: int, *, least: int | None = None, avoid: tuple[str, ...] = ()) -> AttemptRequest:
    needs = Needs(workers=workers, min_workers=least)
    return replace(request("succeed", "gang", on=WIDE, needs=needs), avoid=avoid)


@pytest.fixture
def empty() -> Scene:
    return Scene()


def test_a_node_that_reboots_is_waited_for_with_what_there_is() -> None:
    scene = Scene(node(1), node(2))
    place = scene.place(gang(6))

    assert scene.groups == [([2.0] * 3, {"pool": "wide"})], "so that a node may be started"
    reason = "can't give 6 x (1 CPU, 1 NPU) now: its 2 live nodes have 8 CPU, 4 NPU"
    assert place.news() == [Waiting(f"pool 'wide' {reason}")]
    assert scene.after(SOON, place) == []
    scene.alive.append(node(3))
    scene.stands = "CREATED"
    assert scene.after(SOON, place) == []
    assert place.anew() is None


def test_a_pool_that_has_no_node_yet_is_asked_for_as_it_is_declared(empty: Scene) -> None:
    place = empty.place(gang(8, least=2))

    assert empty.groups == [([2.0] * 3, {"pool": "wide"})]
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


def test_a_busy_pool_is_told_as_a_queue() -> None:
    scene = Scene(node(1), node(2), node(3))
    place = scene.place(gang(6))

    busy = "pool 'wide' is busy: 6 x (1 CPU, 1 NPU) is not free"
    assert place.news() == [Waiting(busy, queued=True)]
    scene.alive.pop()
    (lacking,) = scene.after(SOON, place)
    assert isinstance(lacking, Waiting)
    assert not lacking.queued, "a node went while it waited"


def test_nodes_to_avoid_are_named_while_another_may_come_and_used_when_none_does() -> None:
    scene = Scene(node(1, free=2.0))
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


def test_the_run_says_how_long_a_place_is_waited_for() -> None:
    scene = Scene(node(1, free=2.0))
    waits = AttemptSettings(avoid=5.0, shrink=1000.0)
    place = scene.place(replace(gang(2, least=1, avoid=("n1",)), waits=waits))
    place.news()
    assert scene.after(4.0, place) == []
    back = "pool 'wide': no node but 'n1' came within 5 s: goes back there"
    assert scene.after(2.0, place) == [Waiting(back)]

    wide = scene.place(replace(gang(6, least=1), waits=waits))
    scene.after(PATIENT.shrink + 1.0, wide)
    assert wide.anew() is None, "it waits for all"


def test_a_node_to_avoid_that_was_rebooted_is_avoided_under_its_new_id() -> None:
    scene = Scene(node(2))
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
    scene = Scene(*(node(number, free=2.0) for number in sorted(live)))
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


def test_a_node_that_is_drained_is_used_by_no_means() -> None:
    scene = Scene(node(1, free=2.0))
    place = scene.place(replace(gang(2, avoid=("n2",)), drained=("n1",)))

    assert scene.groups[-1][1] == {"pool": "wide", placement.NODE_ID: "!in(id1.1)"}
    (waiting,) = place.news()
    assert "none but 'n2', 'n1', which it avoids, carries" in str(waiting)
    assert scene.after(PATIENT.avoid + 1.0, place) == []
    assert place.anew() is None
    scene.alive.append(node(3, free=2.0))
    scene.stands = "CREATED"
    assert scene.after(SOON, place) == []


@pytest.mark.parametrize(
    ("needs", "chips", "strategy"),
    [
        (Needs(workers=4), [2.0, 2.0], "STRICT_SPREAD"),
        (Needs(workers=6), [2.0, 2.0, 2.0], "STRICT_SPREAD"),
        (Needs(workers=2), [2.0], "STRICT_SPREAD"),
        (Needs(workers=4, min_workers=2), [2.0, 2.0], "STRICT_SPREAD"),
        (Needs(workers=3), [1.0, 1.0, 1.0], "PACK"),
        (Needs(workers=3, devices=2), [2.0, 2.0, 2.0], "PACK"),
        (Needs(workers=4, devices=0), [0.0] * 4, "PACK"),
        (Needs(workers=2, cpus=4.0), [1.0, 1.0], "PACK"),
    ],
)
def test_a_gang_that_fills_nodes_has_one_bundle_a_node(
    needs: Needs, chips: list[float], strategy: str
) -> None:
    scene = Scene(node(1, free=2.0), node(2, free=2.0), node(3, free=2.0))
    place = scene.place(request("succeed", "gang", on=WIDE, needs=needs))

    assert scene.groups == [(chips, {"pool": "wide"})]
    assert scene.strategy == strategy
    together = needs.workers // len(chips)
    options = [place.options(rank) for rank in range(needs.workers)]
    indices = [held["scheduling_strategy"].placement_group_bundle_index for held in options]
    assert indices == [rank // together for rank in range(needs.workers)]
    each = {"NPU": needs.devices} if needs.devices else {}
    assert all((held["num_cpus"], held["resources"]) == (needs.cpus, each) for held in options)
    totals = {name: amount * needs.workers for name, amount in {"CPU": needs.cpus, **each}.items()}
    assert place.resources == totals


def test_a_gang_waits_for_whole_nodes_however_many_chips_are_free_elsewhere() -> None:
    scene = Scene(node(1, free=2.0), node(2, free=1.0), node(3, free=1.0))
    wide = scene.place(gang(4))

    busy = "pool 'wide' is busy: {} x (1 CPU, 1 NPU), {}, is not free"
    assert wide.news() == [Waiting(busy.format(4, "2 on each node"), queued=True)]
    scene.clock.sleep(PATIENT.avoid + PATIENT.shrink)
    assert wide.anew() is None
    scene.alive[0] = node(1, free=1.0)
    scene.clock.sleep(SECONDS_OF_A_LOOK)
    pair = scene.place(gang(2))
    assert pair.news() == [Waiting(busy.format(2, "all on one node"), queued=True)]
    scene.alive[0] = node(1, free=2.0)
    scene.clock.sleep(SECONDS_OF_A_LOOK)
    assert free_room(gang(4), scene.nodes) == 2, "a crew stands by where it may lie"
    assert free_room(gang(4, least=1), scene.nodes) == 4


def test_a_gang_waits_where_the_live_nodes_are_smaller_than_declared() -> None:
    scene = Scene(*(node(n, free=1.0, chips=1.0) for n in (1, 2, 3)))
    (waiting,) = scene.place(gang(2)).news()

    wanted = "2 x (1 CPU, 1 NPU), all on one node,"
    have = "its 3 live nodes have 12 CPU, 3 NPU"
    assert waiting == Waiting(f"pool 'wide' can't give {wanted} now: {have}")


def test_larger_nodes_than_declared_get_as_many_workers_as_the_others() -> None:
    scene = Scene(node(1, free=4.0, chips=4.0))
    (waiting,) = scene.place(gang(4)).news()

    assert scene.strategy == "STRICT_SPREAD"
    assert "can't give 4 x (1 CPU, 1 NPU), 2 on each node, now" in str(waiting)


def test_an_elastic_gang_takes_whole_nodes_where_there_are_and_else_any_chips() -> None:
    scene = Scene(node(1, free=2.0), node(2, free=1.0), node(3, free=1.0))
    scene.place(gang(4, least=1))
    assert scene.groups[-1][0] == [1.0] * 4, "it begins at once"

    scene.alive = [node(1), node(2), node(3)]
    scene.clock.sleep(SECONDS_OF_A_LOOK)
    place = scene.place(gang(4, least=1))
    assert scene.groups[-1][0] == [2.0, 2.0]
    place.news()
    scene.alive = [node(1, free=2.0), node(2, free=2.0), node(3)]
    assert scene.after(PATIENT.shrink + SOON, place) == []
    assert place.anew() is None, "its place is free"
    scene.alive = [node(1, free=2.0), node(2, free=1.0), node(3, free=1.0)]
    scene.clock.sleep(SECONDS_OF_A_LOOK)
    again = place.anew()
    assert again is not None
    scene.place(again)
    assert scene.groups[-1][0] == [1.0] * 4
    scene.alive = [node(1, free=1.0), node(2, free=1.0), node(3)]
    scene.clock.sleep(SECONDS_OF_A_LOOK)
    again = place.anew()
    assert again is not None
    scene.place(again)
    assert scene.groups[-1][0] == [1.0] * 2, "fewer, where they are"
