"""The gateway of a home, as a service of this host: the HTTP server, and the reconciler.

Both are started again when they die: what they know is in the database. Every host may have a
gateway of its own; each tells the database where it is and what it has counted.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, fields
from functools import cache
from pathlib import Path

from pydantic import TypeAdapter

from orchestrator import supervisor
from orchestrator.core.errors import Problem, ServingError, shown
from orchestrator.core.own_host import is_loopback, leads_home
from orchestrator.core.settings import GatewaySettings
from orchestrator.serving.http.request_limits import GatewayLimits
from orchestrator.supervisor.record import wait

SERVICE = "gateway"
CONNECT_SECONDS = 5.0
FREE_SECONDS = 2.0
TRIES = 3
_LOOPBACK = "127.0.0.1"
_LAST_PORT = 65_535
_ALL = {"0.0.0.0": _LOOPBACK, "::": "::1"}  # noqa: S104 - where one that listens everywhere is asked from here
_FAR = "192.0.2.1"  # an address of nobody's: the way to it is the way out


def _unknown() -> str:
    """Return nothing: nobody knows an address of this host."""
    return ""


def up(
    home: Path,
    settings: GatewaySettings,
    cluster: str,
    env: Mapping[str, str],
    node: Callable[[], str] = _unknown,
) -> str:
    """Start the gateway of `home`, unless it runs, and return its address.

    The reconciler looks after endpoints on the Ray cluster at `cluster`; `env` is for both.
    `node` returns the address by which the cluster knows this host, empty where it does not.

    Raises:
        ServingError: It can't be started, or runs elsewhere or for another living cluster.
    """
    try:
        running = supervisor.find(home, SERVICE)
        if running is not None and running.processes and not _orphaned(running, cluster):
            return _match(running, settings, cluster)
        supervisor.clear(home, SERVICE)
        _check_free(settings)
        info = {"url": url_of(settings, cluster, node), "cluster": cluster, "port": settings.port}
        processes = _processes(settings, info, env)
        service = supervisor.start(home, SERVICE, processes, info=info, timeout=settings.start)
    except supervisor.ServiceError as error:
        where = str(home / "services")
        message = f"the gateway can't be started: {error}; its log is in {where!r}"
        raise ServingError(message) from error
    return str(service.info["url"])


def check(home: Path, settings: GatewaySettings) -> None:
    """Check that the gateway of `home` runs where `settings` say, or can be started there.

    Raises:
        ServingError: It runs on another port, a program of somebody else has this one, or a file
            of its certificate is not there.
    """
    try:
        running = supervisor.find(home, SERVICE)
        if running is not None and running.processes:
            _check_port(running, settings.port)
            return
        supervisor.clear(home, SERVICE)
    except supervisor.ServiceError as error:
        raise ServingError(str(error)) from error
    for problem in problems(settings):
        raise ServingError(str(problem))
    _check_free(settings)


def problems(settings: GatewaySettings) -> Iterator[Problem]:
    """Yield what this host lacks of what the gateway needs."""
    for name, path in asdict(settings.tls).items():
        if path and not Path(path).is_file():
            what = f"{shown(path)} is no file on this host"
            yield Problem(f"gateway.tls.{name}", what, "name a file in PEM")
    last = (settings.metrics.port or 0) + settings.processes - 1
    if last > _LAST_PORT:
        what = f"{settings.processes} processes need the ports up to {last}"
        yield Problem("gateway.metrics.port", what, f"there are {_LAST_PORT}: take a lower one")


def find(home: Path) -> str | None:
    """Return the address of the gateway of `home` on this host, or `None` when it is not up."""
    service = supervisor.find(home, SERVICE)
    return str(service.info["url"]) if service and service.processes else None


def port(home: Path) -> int | None:
    """Return the port at which the gateway of `home` listens, where it is up."""
    service = supervisor.find(home, SERVICE)
    return int(str(service.info["port"])) if service and service.processes else None


def cluster(home: Path) -> str | None:
    """Return the address of the cluster that the gateway of `home` serves from, where it is up."""
    service = supervisor.find(home, SERVICE)
    return str(service.info["cluster"]) if service and service.processes else None


def down(home: Path) -> bool:
    """Stop the gateway of `home`; return whether there was one."""
    return supervisor.stop(home, SERVICE)


def url_of(settings: GatewaySettings, cluster: str, node: Callable[[], str] = _unknown) -> str:
    """Return what clients are told: the public address, or that of this host.

    Where it listens everywhere, it is the address by which this host reaches the cluster, or the
    world where the cluster is this host: also where this host's own name leads to loopback. A
    host without a way out is told as `node` says.
    """
    if settings.url:
        return settings.url.rstrip("/")
    host = settings.host
    if host in _ALL:
        head = cluster.rpartition(":")[0].strip("[]")
        host = _own_address(_FAR if not head or leads_home(head) else head)
        if is_loopback(host):
            host = _own_address(_FAR)
        if is_loopback(host):
            host = node() or host
    return f"{settings.scheme}://{_bracketed(host)}:{settings.port}"


def dumped(settings: GatewaySettings) -> str:
    """Return the settings as text, for the command line of the server."""
    return json.dumps(asdict(settings))


def loaded(text: str) -> GatewaySettings:
    """Return the settings that `dumped` wrote."""
    return _adapter().validate_json(text)


def limits_of(settings: GatewaySettings) -> GatewayLimits:
    """Return the limits; what the settings leave open is as ever."""
    whole = {f.name for f in fields(GatewayLimits) if isinstance(f.default, int)}
    given = {name: int(v) if name in whole else v for name, v in settings.limits.items()}
    return GatewayLimits(**given)  # type: ignore[arg-type]


@cache
def _adapter() -> TypeAdapter[GatewaySettings]:
    return TypeAdapter(GatewaySettings)


def _processes(
    settings: GatewaySettings, info: Mapping[str, object], env: Mapping[str, str]
) -> tuple[supervisor.Process, ...]:
    ours = (sys.executable, "-m", "orchestrator")
    url, cluster = str(info["url"]), str(info["cluster"])
    server = (*ours, "_gateway", dumped(settings), url, cluster)
    names = ["server", *(f"server-{n + 1}" for n in range(1, settings.processes))]
    reconciler = (*ours, "_reconcile", cluster, dumped(settings))
    ready = (_asked_at(settings.host), settings.port)
    return (
        *(
            supervisor.Process(
                name=name,
                argv=(*server, str(number)),
                env=env,
                ready=None if number else ready,  # they share the port
                again=True,
                tries=TRIES,
            )
            for number, name in enumerate(names)
        ),
        supervisor.Process(name="reconciler", argv=reconciler, env=env, again=True, tries=TRIES),
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


def _match(running: supervisor.Service, settings: GatewaySettings, cluster: str) -> str:
    _check_port(running, settings.port)
    if running.info["cluster"] != cluster:
        message = (
            f"the gateway of this home serves from the cluster at {running.info['cluster']!r}"
        )
        raise ServingError(f"{message}, not {cluster!r}; run `orchestrator down` first")
    return str(running.info["url"])


def _check_port(running: supervisor.Service, port: int) -> None:
    used = running.info["port"]
    if used != port:
        hint = f"set gateway.port={used}, or run `orchestrator down` first"
        raise ServingError(f"the gateway of this home listens on port {used}, not {port}; {hint}")


def _check_free(settings: GatewaySettings) -> None:
    """Wait a little for the ports: whoever had one may be just going.

    Raises:
        ServingError: One stays taken, or the host is none of this machine's.
    """
    metrics, host = settings.metrics, settings.host
    wanted = [("gateway.port", host, settings.port)]
    if metrics.port is not None:
        ports = range(metrics.port, metrics.port + settings.processes)
        wanted += [("gateway.metrics.port", metrics.host, port) for port in ports]
    for name, host, port in wanted:
        if not _has(host):
            where = name.replace("port", "host")
            raise ServingError(f"{host!r} is no address of this machine; mend {where}")
        if not wait(lambda host=host, port=port: _free(host, port), FREE_SECONDS):  # type: ignore[misc]
            raise ServingError(f"port {port} of {host} is in use; set {name} to a free port")


def _has(host: str) -> bool:
    return _free(host, 0)


def _free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _asked_at(host: str) -> str:
    return _ALL.get(host, host)


def _own_address(towards: str) -> str:
    """Return this host's address on the way to another."""
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))  # which sends nothing
        except OSError:
            return _LOOPBACK
        return str(probe.getsockname()[0])


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
