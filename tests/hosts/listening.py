"""What listens on hosts where others reach it, by the program that does, and what it answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from tests.hosts.namespaces import HERE, Host

Question: TypeAlias = tuple[str, str]  # the way, and what is asked for
_LISTENS = "0A"
# As the kernel writes addresses: 127.0.0.0/8, ::1, and the first of these within IPv6.
_ONE_OF_IPV6 = "00000000000000000000000001000000"
_WITHIN_IPV6 = "0000000000000000FFFF0000"


@dataclass(frozen=True, slots=True)
class Port:
    """A row of `docs/security.md`: whose it is, and the answer to who has no secret.

    `command` matches the command line of the program that listens. `{model}` stands for the
    address of a served model on the replicas.
    """

    command: str
    question: Question | None = None
    answer: str = ""


def _of_ray(command: str, method: str) -> Port:
    return Port(command, ("grpc", f"/ray.{method}"), "UNAUTHENTICATED")


REFUSED, FIGURES = "401", "200 text/plain"
PORTS = {
    "Ray's head (`gcs_server`)": _of_ray(r"/gcs_server ", "rpc.NodeInfoGcsService/GetAllNodeInfo"),
    "dashboard and job server (`dashboard`)": Port(
        r"dashboard/dashboard\.py", ("http", "/api/jobs/"), REFUSED
    ),
    "Ray's client server (`ray.util.client.server`)": _of_ray(
        r"ray\.util\.client\.server", "rpc.RayletDriver/KVGet"
    ),
    "node of Ray (`raylet`)": _of_ray(r"/raylet ", "rpc.NodeManagerService/GetNodeStats"),
    "objects of a node (`raylet`)": _of_ray(r"/raylet ", "rpc.ObjectManagerService/Pull"),
    "agent of a node (`DashboardAgent`), over HTTP": Port(
        r"ray::DashboardAgent", ("http", "/api/job_agent/jobs/"), REFUSED
    ),
    "agent of a node (`DashboardAgent`), over gRPC": _of_ray(
        r"ray::DashboardAgent", "rpc.LogService/ListLogs"
    ),
    "agent for environments (`RuntimeEnvAgent`)": Port(
        r"ray::RuntimeEnvAgent", ("http", "/get_or_create_runtime_env"), REFUSED
    ),
    "workers, replicas, controllers, reconcilers, as processes of Ray": _of_ray(
        r"ray::|orchestrator _reconcile", "rpc.CoreWorkerService/PushTask"
    ),
    "figures of a node, of the dashboard, of the autoscaler": Port(
        r"ray::DashboardAgent|dashboard\.py|monitor\.py", ("http", "/metrics"), FIGURES
    ),
    "replica (`ServeReplica`)": Port(r"ray::ServeReplica", ("http", "{model}/v1/models"), REFUSED),
    "calls between Serve's applications (`ServeReplica`)": _of_ray(
        r"ray::ServeReplica", "serve.ASGIService/HandleRequest"
    ),
    "proxy of Serve (`ProxyActor`)": Port(
        r"ray::ProxyActor", ("http", "{model}/v1/models"), REFUSED
    ),
    "gateway": Port(r"orchestrator _gateway", ("http", "/v1/models"), REFUSED),
    "PostgreSQL": Port(r"bin/postgres ", ("postgresql", "orchestrator"), "wrong password"),
    "MLflow of yours": Port(r"mlflow[./]server", ("of a foreign host", "/"), "403 text/plain"),
    "S3 of yours": Port(r"moto\.server"),
}


@dataclass(frozen=True, slots=True)
class Listener:
    """A port of a host at which a program, by its command line, listens on more than loopback."""

    address: str
    port: int
    command: str

    @property
    def place(self) -> str:
        """Where others find it."""
        return f"{self.address}:{self.port}"

    def rows(self) -> list[str]:
        """Return the rows of the page that it may be."""
        return [row for row, port in PORTS.items() if re.search(port.command, self.command)]


def rows_of(page: str) -> dict[str, str]:
    """Return the rows of the table of ports between hosts: the port, by the name of the row."""
    section = page.partition("### Ports between hosts")[2].partition("\n## ")[0]
    cells = [line.strip("| ").split(" | ") for line in section.splitlines() if "|" in line]
    assert all(len(row) == 4 and all(row) for row in cells), cells
    return {row[0]: row[1] for row in cells[2:]}


def named(seen: Sequence[Listener], stranger: Host, model: str) -> dict[Listener, list[str]]:
    """Return the rows by which each answers to somebody on a host who has no secret."""
    asked = [
        (listener, row, port.question)
        for listener in seen
        for row in listener.rows()
        if (port := PORTS[row]).question
    ]
    questions = [
        (way, listener.place, what.format(model=model)) for listener, _, (way, what) in asked
    ]
    secretless = ("env", *(word for name in stranger.env for word in ("-u", name)))
    words = (stranger.root.python, str(HERE / "stranger.py"), json.dumps(questions))
    done = stranger.run(*secretless, *words, seconds=300.0)
    assert done.returncode == 0, done.stderr
    rows = {
        listener: [row for row in listener.rows() if not PORTS[row].question] for listener in seen
    }
    for (listener, row, question), answer in zip(asked, json.loads(done.stdout), strict=True):
        print(listener.place, listener.command[:60], question, answer)
        if answer == PORTS[row].answer:
            rows[listener].append(row)
    return rows


def listeners(host: Host) -> list[Listener]:
    """Return what listens on a host where others reach it; none has a command that has ended."""
    commands = _commands_by_socket(host)
    rows = [row for table in ("tcp", "tcp6") for row in _rows(host, table)]
    ports = {row[9]: int(row[1].rpartition(":")[2], 16) for row in rows if open_to_others(row)}
    return [
        Listener(host.address, port, commands.get(socket, "")) for socket, port in ports.items()
    ]


def _rows(host: Host, table: str) -> list[list[str]]:
    text = Path(f"/proc/{host.pid}/net/{table}").read_text()
    return [line.split() for line in text.splitlines()[1:]]


def open_to_others(row: Sequence[str]) -> bool:
    """Whether a row of the kernel is of a port that listens on more than loopback."""
    address = row[1].partition(":")[0]
    ipv4 = address.removeprefix(_WITHIN_IPV6)
    loopback = address == _ONE_OF_IPV6 or (len(ipv4) == len("0100007F") and ipv4.endswith("7F"))
    return row[3] == _LISTENS and not loopback


def _commands_by_socket(host: Host) -> dict[str, str]:
    """Return the command lines of what runs on a host, by the sockets that it holds."""
    commands: dict[str, str] = {}
    for pid in sorted(host.processes(), reverse=True):  # the eldest holder has the last word
        with suppress(OSError):  # it has ended
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            command = b" ".join(words).decode(errors="replace").strip()
            commands |= dict.fromkeys(_sockets(pid), command)
    return commands


def _sockets(pid: int) -> Iterator[str]:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            kind, _, number = str(descriptor.readlink()).partition(":")
            if kind == "socket":
                yield number.strip("[]")
