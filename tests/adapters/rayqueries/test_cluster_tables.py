"""What the head tells of nodes and groups is what Ray's own calls tell; silence is an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc
import pytest
import ray
from ray.core.generated import gcs_service_pb2_grpc as stubs
from ray.util.placement_group import (
    placement_group,
    placement_group_table,  # noqa: TID251 - the judge
    remove_placement_group,
)

from orchestrator.adapters.raycluster.nodes import SECONDS_OF_A_LOOK, ClusterNodes
from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.adapters.rayqueries.gcs import HeadSilentError
from orchestrator.core.errors import ClusterError
from tests.adapters.rayqueries.test_gcs import MINE, Head, serving
from tests.fakes import FakeClock


@pytest.mark.ray
def test_nodes_are_those_that_ray_tells_of(ray_address: str) -> None:
    assert ray_address
    ours = {node.id: node for node in cluster_tables.nodes()}
    rays = {node["NodeID"]: node for node in ray.nodes()}  # noqa: TID251 - the judge
    assert ours.keys() == rays.keys()
    for key, node in ours.items():
        theirs = rays[key]
        assert (node.name, node.host, node.port, node.alive) == (
            theirs["NodeName"],
            theirs["NodeManagerAddress"],
            theirs["NodeManagerPort"],
            theirs["Alive"],
        )
        if node.alive:
            assert (node.labels, node.total) == (theirs["Labels"], theirs["Resources"])
            assert node.free.keys() <= node.total.keys()


@pytest.mark.ray
def test_groups_are_those_that_ray_tells_of(ray_address: str) -> None:
    assert ray_address
    there = placement_group([{"CPU": 0.5}, {"CPU": 0.25}], name="there")
    never = placement_group([{"CPU": 10_000.0}], name="never")
    try:
        ray.get(there.ready(), timeout=60)
        found = {group.name: group for group in cluster_tables.groups()}
        for handle, name in ((there, "there"), (never, "never")):
            rays: dict[str, Any] = placement_group_table(handle)
            group = cluster_tables.group(handle)
            assert (group, group.state) == (found[name], rays["state"])
            assert group.waits_for == rays["stats"]["scheduling_state"]
            assert group.nodes == tuple(rays["bundles_to_node_id"].values())
        assert (found["there"].created, found["never"].created) == (True, False)
        assert found["never"].waits_for == cluster_tables.INFEASIBLE
    finally:
        remove_placement_group(there)
        remove_placement_group(never)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (grpc.StatusCode.UNAVAILABLE, HeadSilentError),
        (grpc.StatusCode.DEADLINE_EXCEEDED, HeadSilentError),
        (grpc.StatusCode.FAILED_PRECONDITION, HeadSilentError),
        (grpc.StatusCode.UNAUTHENTICATED, ClusterError),
    ],
    ids=lambda value: getattr(value, "name", None) or value.__name__,
)
def test_a_head_that_refuses_is_an_error_of_ours_and_no_end_of_the_process(
    code: grpc.StatusCode, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Refusing(Head, stubs.NodeResourceInfoGcsServiceServicer):
        def GetAllNodeInfo(self, request, context):  # noqa: N802 - Ray's name
            context.abort(code, "another cluster")

    with serving(Refusing({}, MINE)) as address:
        of_it = SimpleNamespace(gcs_address=address)
        monkeypatch.setattr(ray, "get_runtime_context", lambda: of_it)
        with pytest.raises(error):
            cluster_tables.nodes()


def test_while_the_head_is_silent_the_nodes_are_those_of_the_last_look() -> None:
    clock = FakeClock(100.0)
    told: list[Node] | None = None

    def ask() -> list[Node]:
        if told is None:
            raise HeadSilentError("silent")
        return told

    nodes = ClusterNodes(clock.now, ask, dict)
    with pytest.raises(HeadSilentError):
        nodes.live()
    node = Node("id1", "n1", "127.0.0.1", 1, {}, {}, {})
    told = [node]
    assert nodes.live() == [node]
    told = None
    clock.sleep(2 * SECONDS_OF_A_LOOK)
    assert nodes.alive() == {"id1"}
