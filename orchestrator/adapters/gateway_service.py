"""The gateway of a home, as a service of this machine: the HTTP server, and the keeper.

Both are started again when they die: what they know is in the event store. It listens on
loopback; put a proxy with TLS before it to open it to others.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Mapping
from pathlib import Path

from orchestrator import supervisor
from orchestrator.core.errors import ServingError
from orchestrator.supervisor.record import wait

SERVICE = "gateway"
HOST = "127.0.0.1"
START_SECONDS = 60.0
CONNECT_SECONDS = 5.0
FREE_SECONDS = 2.0
TRIES = 3


def up(home: Path, port: int, cluster: str, env: Mapping[str, str]) -> str:
    """Start the gateway of `home` on `port`, unless it runs, and return its address.

    The keeper looks after endpoints on the Ray cluster at `cluster`; `env` is for both.

    Raises:
        ServingError: It can't be started, or runs on another port or for another living cluster.
    """
    try:
        running = supervisor.find(home, SERVICE)
        if running is not None and running.processes and not _orphaned(running, cluster):
            return _match(running, port, cluster)
        supervisor.clear(home, SERVICE)
        _check_free(port)
        info = {"url": f"http://{HOST}:{port}", "cluster": cluster}
        service = supervisor.start(
            home, SERVICE, _processes(port, info, env), info=info, timeout=START_SECONDS
        )
    except supervisor.ServiceError as error:
        where = str(home / "services")
        message = f"the gateway can't be started: {error}; its log is in {where!r}"
        raise ServingError(message) from error
    return str(service.info["url"])


def check(home: Path, port: int) -> None:
    """Check that the gateway of `home` runs on `port`, or can be started there.

    Raises:
        ServingError: It runs on another port, or a program of somebody else has this one.
    """
    try:
        running = supervisor.find(home, SERVICE)
        if running is not None and running.processes:
            _check_port(running, port)
            return
        supervisor.clear(home, SERVICE)
    except supervisor.ServiceError as error:
        raise ServingError(str(error)) from error
    _check_free(port)


def find(home: Path) -> str | None:
    """Return the address of the gateway of `home`, or `None` when it is not up."""
    service = supervisor.find(home, SERVICE)
    return str(service.info["url"]) if service and service.processes else None


def cluster(home: Path) -> str | None:
    """Return the address of the cluster that the gateway of `home` serves from, where it is up."""
    service = supervisor.find(home, SERVICE)
    return str(service.info["cluster"]) if service and service.processes else None


def down(home: Path) -> bool:
    """Stop the gateway of `home`; return whether there was one."""
    return supervisor.stop(home, SERVICE)


def _processes(
    port: int, info: Mapping[str, str], env: Mapping[str, str]
) -> tuple[supervisor.Process, ...]:
    ours = (sys.executable, "-m", "orchestrator")
    server, keeper = (*ours, "_gateway", str(port)), (*ours, "_keep", info["cluster"], info["url"])
    return (
        supervisor.Process(
            name="server", argv=server, env=env, ready=(HOST, port), again=True, tries=TRIES
        ),
        supervisor.Process(name="keeper", argv=keeper, env=env, again=True, tries=TRIES),
    )


def _orphaned(running: supervisor.Service, cluster: str) -> bool:
    """Return whether its cluster is gone, as after the head died: a new one has a new address."""
    served = str(running.info["cluster"])
    return served != cluster and not answers(served)


def answers(address: str) -> bool:
    """Return whether the head of the cluster at `address` can be reached."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError:
        return False
    return True


def _match(running: supervisor.Service, port: int, cluster: str) -> str:
    _check_port(running, port)
    if running.info["cluster"] != cluster:
        message = (
            f"the gateway of this home serves from the cluster at {running.info['cluster']!r}"
        )
        raise ServingError(f"{message}, not {cluster!r}; run `orchestrator down` first")
    return str(running.info["url"])


def _check_port(running: supervisor.Service, port: int) -> None:
    there = str(running.info["url"]).rpartition(":")[2]
    if there != str(port):
        hint = f"set cluster.serve_port={there}, or run `orchestrator down` first"
        raise ServingError(f"the gateway of this home listens on port {there}, not {port}; {hint}")


def _check_free(port: int) -> None:
    """Wait a little for the port: whoever had it may be just going.

    Raises:
        ServingError: It stays taken.
    """
    if not wait(lambda: _free(port), FREE_SECONDS):
        line = f"port {port} of {HOST} is in use"
        raise ServingError(f"{line}; set cluster.serve_port to a free port")


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
