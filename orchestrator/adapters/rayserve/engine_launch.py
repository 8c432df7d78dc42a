"""How one process of an engine server is started, on the node where this is.

A replica has one on each of its nodes. The first leads: it is asked, and the others follow it.
Nothing here knows Ray.
"""

from __future__ import annotations

import os
import shlex
import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from orchestrator.adapters.rayserve.engine_process import EngineProcess, inherited
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.spec.engine_command import (
    ReplicaPart,
    argv_of,
    chips_of,
    environment_of,
    files_of,
    joining_of,
)
from orchestrator.node import rendezvous_port


class EngineStartError(RuntimeError):
    """The engine server can't be started; the message says why by its own words."""


class Followers(Protocol):
    """The processes of a replica on its other nodes, as the one that leads has them."""

    @property
    def count(self) -> int:
        """How many there are."""
        ...

    def start(self, folder: Path, leader: str, ports: tuple[int, ...]) -> None:
        """Start them over the model that lies in `folder` here; they meet `leader` at `ports`.

        Raises:
            EngineStartError: One can't be started.
        """
        ...

    def ended(self) -> str:
        """Return which of them ended, and how; empty while all run."""
        ...

    def see(self, folder: Path) -> bool:
        """Return whether what lies in `folder` here does so on their nodes."""
        ...

    def stop(self, grace: float) -> None:
        """End them all within `grace` seconds. Safe to call twice."""
        ...


class NoFollowers:
    """Those of a replica on one node."""

    count = 0

    def start(self, folder: Path, leader: str, ports: tuple[int, ...]) -> None:
        """Start none."""

    def ended(self) -> str:
        """Return that all run."""
        return ""

    def see(self, folder: Path) -> bool:  # noqa: ARG002 - of the protocol
        """Return that all see it."""
        return True

    def stop(self, grace: float) -> None:
        """End none."""


def say(line: str) -> None:
    """Write a line to the log of the replica."""
    with suppress(OSError, ValueError):  # telling fails nobody
        print(f"supervisor: {line}", flush=True)  # noqa: T201 - see above


def free_ports(host: str, count: int) -> tuple[int, ...]:
    """Return ports that nobody listens at on address `host` of this node."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as opened:
        servers = (socket.create_server((host, 0), family=family) for _ in range(count))
        return tuple(int(opened.enter_context(server).getsockname()[1]) for server in servers)


def launch(
    deployment: Deployment, model: Path, files: Path, address: tuple[str, int], part: ReplicaPart
) -> EngineProcess:
    """Start the engine over the model in a folder; it listens at `address`, one of this node.

    `files` is a folder of this user alone, for the files that it reads.

    Raises:
        EngineStartError: There is no such command.
    """
    endpoint, pool = deployment.endpoint, deployment.pool
    spec = endpoint.server
    assert spec is not None, "the plan has its server"  # noqa: S101
    interface = rendezvous_port.interface_to(part.leader) if part.nodes > 1 else ""
    places = {
        "python": sys.executable,
        "host": address[0],
        "port": str(address[1]),
        "model": str(model),
        "name": endpoint.name,
        "files": str(files),
        **chips_of(max(deployment.needs.devices, 1), part.nodes),
        **part.places(interface),
    }
    options, key = endpoint.engine_options, deployment.token
    for name, text in files_of(spec, pool, options, {**places, "key": key}, part).items():
        file = files / name
        file.touch(mode=0o600)
        file.write_text(text, "utf-8")
    node = inherited(os.environ)  # noqa: TID251 - handed on
    environment = {**joining_of(spec, places, part), **node, **environment_of(spec, pool, places)}
    if spec.key_variable:
        environment[spec.key_variable] = key
    if endpoint.updates:
        environment |= spec.update_environment
    own = {name: os.environ[name] for name in deployment.secrets if name in os.environ}  # noqa: TID251 - as above
    environment |= own
    argv = argv_of(spec, pool, options, places, part)
    say(f"starting {shlex.join(argv)}")
    try:
        return EngineProcess(argv, environment, tuple(own.values()))
    except OSError as error:
        raise EngineStartError(f"{argv[0]!r} can't be started: {error}") from error
