"""Where replicas may go. Serve waits for ever for what can't be placed, so it is asked before."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import Any

from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from orchestrator.core.endpoints import Deployment

_SECONDS = 2.0
_POLL_SECONDS = 0.05


class Room(StrEnum):
    """Whether the replicas of a deployment find a place."""

    FREE = "free"
    BUSY = "busy"
    NEVER = "never"


def bundle(deployment: Deployment) -> dict[str, float]:
    """Return the resources that one replica holds."""
    held = {"CPU": float(deployment.needs.cpus)}
    resource = deployment.pool.accelerator.resource
    if resource and deployment.needs.devices:
        held[resource] = float(deployment.needs.devices)
    return held


def actor_options(deployment: Deployment) -> dict[str, Any]:
    """Return where Ray is to place a replica: by resource and by label."""
    held = bundle(deployment)
    return {
        "num_cpus": held.pop("CPU"),
        "num_gpus": held.pop("GPU", 0),
        "resources": held,
        "label_selector": deployment.pool.selector,
        "runtime_env": deployment.pool.runtime_env,
    }


def probe(deployment: Deployment) -> Room:
    """Ask the scheduler for all replicas at once, and give the place back."""
    replicas = deployment.endpoint.replicas
    group = placement_group(
        [bundle(deployment)] * replicas,
        strategy="PACK",
        name=deployment.key,
        bundle_label_selector=[deployment.pool.selector] * replicas,
    )
    try:
        return _room(group)
    finally:
        remove_placement_group(group)


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
    return f"{deployment.endpoint.replicas} x ({each})"
