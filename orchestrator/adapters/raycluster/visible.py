"""What a worker process finds out about itself: its node, its devices, a port for its gang."""

from __future__ import annotations

import os
import socket

import ray

from orchestrator.ports import AttemptRequest


def prepare(request: AttemptRequest) -> str:
    """Show this process its own chips alone, and return its node's name.

    Ray does that for the makers that it knows; for a custom resource it is done here.
    """
    context = ray.get_runtime_context()
    chip = request.pool.accelerator
    variable = chip.visible_devices
    known = chip.resource in {"GPU", "NPU", "TPU", "HPU", "neuron_cores"}
    if variable and chip.resource and not known and not request.pool.emulated:
        ids = context.get_accelerator_ids().get(chip.resource, [])
        if ids:
            os.environ[variable] = ",".join(ids)  # noqa: TID251 - drivers read it from there
    return str(context.get_node_id())


def free_address() -> str:
    """Return `HOST:PORT` on this node, with a port that was free a moment ago."""
    host = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind((host, 0))
        return f"{host}:{probe.getsockname()[1]}"
