"""Which chips a replica sees: those that Ray gave it, also where Ray has no manager for them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import ray

from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ServingError


def show(deployment: Deployment) -> None:
    """Show this process, and what it starts, its own chips alone.

    Ray does that for the makers that it knows; for a custom resource it is done here.

    Raises:
        ServingError: Ray doesn't say which chips are this replica's.
    """
    resource = deployment.pool.accelerator.resource
    if resource and _foreign(resource):
        os.environ.update(variables(deployment, _ids(resource)))  # noqa: TID251 - drivers read it


def variables(deployment: Deployment, ids: Sequence[str]) -> dict[str, str]:
    """Return what the environment must say for chips `ids` alone to be seen.

    Raises:
        ServingError: There are none, and others may have chips of the same node.
    """
    pool, devices = deployment.pool, deployment.needs.devices
    variable = pool.accelerator.visible_devices
    if pool.emulated or not devices or not variable:
        return {}
    if not ids and devices < pool.devices_per_node:
        what = f"Ray does not number the chips {pool.accelerator.resource!r} of {pool.name!r}"
        raise ServingError(f"{what}: no replica can be shown its own; ask for all of a node")
    ordered = sorted(ids, key=lambda chip: (int(chip) if chip.isdecimal() else sys.maxsize, chip))
    return {variable: ",".join(ordered)} if ids else {}


def _foreign(resource: str) -> bool:
    """Whether Ray has no manager for these chips."""
    return resource not in ray._private.accelerators.get_all_accelerator_resource_names()  # noqa: SLF001 - nowhere else


def _ids(resource: str) -> list[str]:
    worker = ray._private.worker.global_worker  # noqa: SLF001 - the public call knows Ray's makers only
    ids = worker.get_accelerator_ids_for_accelerator_resource(
        resource, f"^{resource}_group_[0-9A-Za-z]+$"
    )
    return [str(chip) for chip in ids]
