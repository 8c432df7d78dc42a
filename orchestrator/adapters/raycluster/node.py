"""One node of the managed cluster: `python -m orchestrator.adapters.raycluster.node SPEC PORT`.

It does what `ray start --block` does, without what that also imports and starts (the commands of
Ray Serve, the proxy of Ray Client, the autoscaler): 2 s of one core and 130 MB less a node. It
listens at PORT, on loopback, once the node has joined.

The names used here are Ray's own and not public, so the version of Ray is pinned. SPEC is a JSON
object of `RayParams`.
"""

from __future__ import annotations

import json
import socket
import sys

from ray._private import services
from ray._private.node import Node
from ray._private.parameter import RayParams

from orchestrator.supervisor.record import wait

HOST = "127.0.0.1"
_FOR_EVER = 1e9
_LOOK_SECONDS = 0.25


def main(spec: str, port: str) -> int:
    """Start the node's processes, watch them, and go when one of them ends."""
    node = _join(RayParams(**json.loads(spec)))
    ended: list[str] = []

    def any_ended() -> bool:
        ended.extend(
            f"{name} with {process.returncode}" for name, process in node.dead_processes()
        )
        return bool(ended)

    with socket.create_server((HOST, int(port))):
        wait(any_ended, _FOR_EVER, tick=_LOOK_SECONDS)
    print("error: these ended:", ", ".join(ended), flush=True)  # noqa: T201 - the log of this node
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    return 1


def _join(params: RayParams) -> Node:
    head = params.gcs_address is None
    # what drivers make of a loopback address, as their environment says
    params.node_ip_address = services.resolve_ip_for_localhost(params.node_ip_address)
    if not head:
        params.gcs_address = services.canonicalize_bootstrap_address(params.gcs_address)
    return Node(params, head=head, shutdown_at_exit=True, spawn_reaper=True, connect_only=False)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
