"""What a worker process finds out about itself: its node, its devices, the port of its gang."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from typing import NoReturn

import ray

from orchestrator.adapters.raycluster.ranking import WorkerPlace
from orchestrator.adapters.rayqueries import chip_numbering, chips
from orchestrator.core.errors import ClusterError
from orchestrator.messages import AttemptRequest
from orchestrator.node import rendezvous_port, software
from orchestrator.supervisor import orphans

# The last word must have left before the process ends; whoever heard it ends the process sooner.
_SECONDS_TO_BE_ENDED = 30.0


def prepare(request: AttemptRequest) -> str:
    """Show this process its own chips alone, and return the id of its node.

    Ray does that for the makers that it knows; for a custom resource it is done here. From here
    on, what this process starts ends with it: a killed worker leaves nobody on its chips.

    Raises:
        ClusterError: Ray doesn't say which chips are this worker's.
    """
    with suppress(OSError):  # a host without room for one more process has other troubles
        orphans.watch()
    pool, chip = request.pool, request.pool.accelerator
    real = request.needs.devices and not pool.emulated
    if real and chip.resource and chip.visible_devices and chips.unknown_to_ray(chip.resource):
        ids = chips.of_this_process(chip.resource)
        if ids:
            os.environ[chip.visible_devices] = ",".join(ids)  # noqa: TID251 - drivers read it
        elif request.needs.devices < pool.devices_per_node:
            message = f"Ray does not number the chips {chip.resource!r} of pool {pool.name!r}"
            value = chip_numbering.numbering((chip.resource,))
            hint = f"start its nodes with {chip_numbering.NUMBERED}={value} in their environment"
            raise ClusterError(f"{message}; {hint}")
    return node()


def place(request: AttemptRequest) -> WorkerPlace:
    """Return where this process is: its node, and the chips that it is given there."""
    resource = request.pool.accelerator.resource
    held = chips.of_this_process(resource) if resource and request.needs.devices else []
    runs = software.running(request.pool.accelerator.torch_package, request.shipped)
    return WorkerPlace(node(), tuple(held), runs)


def node() -> str:
    """Return the id of the node of this process."""
    return str(ray.get_runtime_context().get_node_id())


def open_address() -> str:
    """Return `HOST:PORT` on this node where rank 0 of a gang is met; the port is open from now."""
    return rendezvous_port.keep_open(ray.util.get_node_ip_address())


def end() -> NoReturn:
    """End this process, its threads, and whatever it has started: it was asked to."""
    os._exit(0)


def end_with_its_threads() -> NoReturn:
    """End this process, in which the thread of a job hangs, unless somebody does so first."""
    threading.Event().wait(_SECONDS_TO_BE_ENDED)
    os._exit(1)
