"""What the head of the cluster knows of nodes and placement groups, asked by its protocol.

Ray's own calls for both end the process of whoever asks when the head refuses it, as one does that
was started anew without what it knew. Here that is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from orchestrator.adapters.rayqueries import gcs

INFEASIBLE, NO_RESOURCES = "INFEASIBLE", "NO_RESOURCES"


@dataclass(frozen=True, slots=True)
class Node:
    """A node: its name, where its raylet listens, and its resources, all and free."""

    id: str
    name: str
    host: str
    port: int
    labels: Mapping[str, str]
    total: Mapping[str, float]
    free: Mapping[str, float]
    alive: bool = True


@dataclass(frozen=True, slots=True)
class Group:
    """A placement group. `nodes` are the ids of those that hold its bundles, in their order."""

    name: str
    state: str
    waits_for: str
    nodes: tuple[str, ...]

    @property
    def created(self) -> bool:
        """Whether all of it is held."""
        return self.state == "CREATED"


def nodes() -> list[Node]:
    """Return the nodes of the cluster, dead ones included.

    Raises:
        HeadSilentError: The head does not answer now.
        ClusterError: It wants another token, or is no head of Ray.
    """
    from ray.core.generated import gcs_service_pb2 as asked
    from ray.core.generated import gcs_service_pb2_grpc as stubs

    with gcs.connected(_address()) as channel:
        ask_nodes = stubs.NodeInfoGcsServiceStub(channel).GetAllNodeInfo
        listed = ask_nodes(asked.GetAllNodeInfoRequest(), timeout=gcs.SECONDS)
        ask_free = stubs.NodeResourceInfoGcsServiceStub(channel).GetAllAvailableResources
        free = ask_free(asked.GetAllAvailableResourcesRequest(), timeout=gcs.SECONDS)
        held = {node.node_id: dict(node.resources_available) for node in free.resources_list}
        return [_node(entry, held.get(entry.node_id, {})) for entry in listed.node_info_list]


def live() -> list[Node]:
    """Return the nodes that Ray counts as alive; raise as `nodes` does."""
    return [node for node in nodes() if node.alive]


def names() -> dict[str, str]:
    """Return the names of all nodes by id, dead ones included; raise as `nodes` does."""
    return {node.id: node.name for node in nodes()}


def groups() -> list[Group]:
    """Return all placement groups of the cluster; raise as `nodes` does."""
    from ray.core.generated import gcs_service_pb2 as asked
    from ray.core.generated import gcs_service_pb2_grpc as stubs

    with gcs.connected(_address()) as channel:
        ask = stubs.PlacementGroupInfoGcsServiceStub(channel).GetAllPlacementGroup
        reply = ask(asked.GetAllPlacementGroupRequest(), timeout=gcs.SECONDS)
        return [_group(entry) for entry in reply.placement_group_table_data]


def group(handle: Any) -> Group:  # noqa: ANN401 - Ray's handle
    """Return what the head knows of a placement group; raise as `nodes` does."""
    from ray.core.generated import gcs_service_pb2 as asked
    from ray.core.generated import gcs_service_pb2_grpc as stubs

    with gcs.connected(_address()) as channel:
        ask = stubs.PlacementGroupInfoGcsServiceStub(channel).GetPlacementGroup
        request = asked.GetPlacementGroupRequest(placement_group_id=handle.id.binary())
        return _group(ask(request, timeout=gcs.SECONDS).placement_group_table_data)


def _address() -> str:
    return str(ray.get_runtime_context().gcs_address)


def _node(entry: Any, free: Mapping[str, float]) -> Node:  # noqa: ANN401 - protobuf has no types
    return Node(
        id=entry.node_id.hex(),
        name=entry.node_name or entry.node_manager_hostname,
        host=entry.node_manager_address,
        port=entry.node_manager_port,
        labels=dict(entry.labels),
        total=dict(entry.resources_total),
        free=free,
        alive=entry.state == gcs.ALIVE,
    )


def _group(entry: Any) -> Group:  # noqa: ANN401 - protobuf has no types
    state, waits_for = entry.DESCRIPTOR.fields_by_name["state"], entry.stats.DESCRIPTOR
    scheduling = waits_for.fields_by_name["scheduling_state"].enum_type.values_by_number
    return Group(
        name=entry.name,
        state=state.enum_type.values_by_number[entry.state].name,
        waits_for=scheduling[entry.stats.scheduling_state].name,
        nodes=tuple(bundle.node_id.hex() for bundle in entry.bundles),
    )
