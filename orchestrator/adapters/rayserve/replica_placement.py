"""Where replicas may go. Serve waits for ever for what can't be placed, so it is asked before.

A replica on several nodes has a placement group of its own, with a bundle on each.
"""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

import ray
from ray.util.placement_group import (
    PlacementGroup,
    placement_group,
    placement_group_table,
    remove_placement_group,
)
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.core.endpoints.life import Deployment

_SECONDS = 2.0
_POLL_SECONDS = 0.05
_APART = "STRICT_SPREAD"


class Room(StrEnum):
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


def serve_options(deployment: Deployment) -> dict[str, Any]:
    """Return where Serve is to place replicas: by resource and by label."""
    nodes, selector = nodes_of(deployment), deployment.pool.selector
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


def probe(deployment: Deployment) -> Room:
    """Ask the scheduler for all replicas at once, and give the place back."""
    nodes = nodes_of(deployment)
    bundles = deployment.endpoint.replicas * nodes
    if nodes > 1 and bundles > _able(deployment):  # of what must lie apart Ray does not say so
        return Room.NEVER
    group = placement_group(
        [bundle(deployment)] * bundles,
        strategy="PACK" if nodes == 1 else _APART,  # of several nodes each takes all chips
        name=deployment.key,
        bundle_label_selector=[deployment.pool.selector] * bundles,
    )
    try:
        return _room(group)
    finally:
        remove_placement_group(group)


def _able(deployment: Deployment) -> int:
    """Return how many live nodes of the pool hold what a replica has on each, if all is free."""
    held, labels = bundle(deployment).items(), deployment.pool.selector.items()
    return sum(
        labels <= node.get("Labels", {}).items()
        and all(node["Resources"].get(name, 0.0) >= amount for name, amount in held)
        for node in ray.nodes()
        if node["Alive"]
    )


def _room(group: Any) -> Room:  # noqa: ANN401 - Ray's handle
    """Wait for a place; that there never will be one is known at once."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        if group.wait(_POLL_SECONDS):
            return Room.FREE
        table: dict[str, Any] = placement_group_table(group)
        if table["stats"]["scheduling_state"] == "INFEASIBLE":
            return Room.NEVER
    return Room.BUSY


def asked(deployment: Deployment) -> str:
    """Return what a deployment asks for, as people write it."""
    each = ", ".join(f"{amount:g} {name}" for name, amount in bundle(deployment).items())
    nodes = nodes_of(deployment)
    on = f"{nodes} nodes with " if nodes > 1 else ""
    return f"{deployment.endpoint.replicas} x {on}({each})"
