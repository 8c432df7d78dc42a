"""Where replicas may go. Serve waits for ever for what can't be placed, so it is asked before.

A replica on several nodes has a placement group of its own, with a bundle on each. On a drained
node none is placed, on one in quarantine none while the others of the pool can hold them.
"""

from __future__ import annotations

import time
from collections.abc import Container, Mapping, Sequence
from enum import StrEnum
from typing import Any

from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.adapters.rayserve.serve_requests import ServeRequest
from orchestrator.core.endpoints.life import Deployment
from orchestrator.messages import UnusedNode

_SECONDS = 2.0
_POLL_SECONDS = 0.05
_SLACK = 1e-6  # amounts are sums of fractions
_APART = "STRICT_SPREAD"
_NODE_ID = "ray.io/node-id"  # the label that Ray gives each node


class ReplicaRoom(StrEnum):
    """Whether the replicas of a deployment find a place."""

    FREE = "free"
    BUSY = "busy"
    NEVER = "never"


def nodes_of(deployment: Deployment) -> int:
    """Return on how many nodes one replica is."""
    return deployment.pool.nodes_of(deployment.needs.devices)


def bundle(deployment: Deployment) -> dict[str, float]:
    """Return the resources that one replica holds on each of its nodes."""
    held = {"CPU": float(deployment.needs.cpus)}
    resource = deployment.pool.accelerator.resource
    if resource and deployment.needs.devices:
        held[resource] = deployment.needs.devices / nodes_of(deployment)
    return held


def serve_options(deployment: Deployment, avoid: Sequence[str] = ()) -> dict[str, Any]:
    """Return where Serve is to place replicas: by resource and label, on no node to `avoid`."""
    nodes, selector = nodes_of(deployment), _selector(deployment, avoid)
    if nodes == 1:
        return {"ray_actor_options": {**_actor_options(deployment), "label_selector": selector}}
    return {
        "ray_actor_options": _actor_options(deployment),
        "placement_group_bundles": [bundle(deployment)] * nodes,
        "placement_group_bundle_label_selector": [selector] * nodes,
        "placement_group_strategy": _APART,
    }


def follower_options(deployment: Deployment, group: PlacementGroup, rank: int) -> dict[str, Any]:
    """Return where Ray is to place what follows as number `rank` in the group of a replica."""
    strategy = PlacementGroupSchedulingStrategy(group, rank)
    return {**_actor_options(deployment), "scheduling_strategy": strategy}


def _actor_options(deployment: Deployment) -> dict[str, Any]:
    held, pool = bundle(deployment), deployment.pool
    return {
        "num_cpus": held.pop("CPU"),
        "num_gpus": held.pop("GPU", 0),
        "resources": held,
        "runtime_env": pool.runtime_env({**pool.variables, **deployment.env}),
    }


def to_avoid(request: ServeRequest, unused: Mapping[str, UnusedNode]) -> tuple[str, ...]:
    """Return the ids of the nodes on which none of the replicas is to be placed."""
    drained = [name for name, node in unused.items() if node.until is None]
    enough = request.others or holds(request, unused)
    return _ids(request.deployment, unused if enough else drained)


def holds(request: ServeRequest, without: Container[str] = ()) -> bool:
    """Return whether the live nodes of the pool but some hold all replicas, if all is free."""
    return _room_on(request.deployment, without) >= request.replicas


def probe(request: ServeRequest, avoid: Sequence[str]) -> ReplicaRoom:
    """Ask the scheduler for all replicas at once, and give the place back."""
    deployment = request.deployment
    nodes = nodes_of(deployment)
    bundles = request.replicas * nodes
    if nodes > 1 and not holds(request, names_of(avoid)):  # what must lie apart Ray does not say
        return ReplicaRoom.NEVER
    group = placement_group(
        [bundle(deployment)] * bundles,
        strategy="PACK" if nodes == 1 else _APART,  # of several nodes each takes all chips
        name=deployment.key,
        bundle_label_selector=[_selector(deployment, avoid)] * bundles,
    )
    try:
        return _room(group)
    finally:
        remove_placement_group(group)


def _room_on(deployment: Deployment, without: Container[str]) -> int:
    """Return how many replicas the live nodes of the pool but some hold, if all is free."""
    nodes = nodes_of(deployment)
    held = [(name, amount) for name, amount in bundle(deployment).items() if amount]
    each = [
        int(min((node.total.get(n, 0.0) / amount + _SLACK for n, amount in held), default=1))
        for node in _live(deployment)
        if node.name not in without
    ]
    return sum(each) if nodes == 1 else sum(map(bool, each)) // nodes


def _live(deployment: Deployment) -> list[Node]:
    """Return the live nodes of the pool."""
    labels = deployment.pool.selector.items()
    return [node for node in cluster_tables.live() if labels <= node.labels.items()]


def _ids(deployment: Deployment, names: Container[str]) -> tuple[str, ...]:
    live = _live(deployment)
    return tuple(sorted(node.id for node in live if node.name in names))


def names_of(ids: Sequence[str]) -> set[str]:
    """Return the names of the nodes with these ids."""
    return {node.name for node in cluster_tables.nodes() if node.id in ids}


def _selector(deployment: Deployment, avoid: Sequence[str]) -> dict[str, str]:
    not_there = {_NODE_ID: f"!in({','.join(avoid)})"} if avoid else {}
    return {**deployment.pool.selector, **not_there}


def _room(group: Any) -> ReplicaRoom:  # noqa: ANN401 - Ray's handle
    """Wait for a place; that there never will be one is known at once."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if group.wait(_POLL_SECONDS):
            return ReplicaRoom.FREE
        if cluster_tables.group(group).waits_for == cluster_tables.INFEASIBLE:
            return ReplicaRoom.NEVER
    return ReplicaRoom.BUSY


def in_words(request: ServeRequest) -> str:
    """Return what Serve is asked for, as people write it."""
    deployment = request.deployment
    each = ", ".join(f"{amount:g} {name}" for name, amount in bundle(deployment).items())
    nodes = nodes_of(deployment)
    on = f"{nodes} nodes with " if nodes > 1 else ""
    return f"{request.replicas} x {on}({each})"
