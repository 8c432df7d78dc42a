"""Which chips a replica sees: those that Ray gave it, also where Ray has no manager for them."""

from __future__ import annotations

import os
from collections.abc import Sequence

from orchestrator.adapters.rayqueries import chip_numbering, chips
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ServingError


def show(deployment: Deployment) -> None:
    """Show this process, and what it starts, its own chips alone.

    Ray does that for the makers that it knows; for a custom resource it is done here.

    Raises:
        ServingError: Ray doesn't say which chips are this replica's.
    """
    resource = deployment.pool.accelerator.resource
    if resource and chips.unknown_to_ray(resource):
        os.environ.update(variables(deployment, chips.of_this_process(resource)))  # noqa: TID251 - drivers read it


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
        resource = str(pool.accelerator.resource)
        what = f"Ray does not number the chips {resource!r} of pool {pool.name!r}"
        value = f"{chip_numbering.NUMBERED}={chip_numbering.numbering((resource,))}"
        raise ServingError(f"{what}; start its nodes with {value} in their environment")
    return {variable: ",".join(chips.in_order(ids))} if ids else {}
