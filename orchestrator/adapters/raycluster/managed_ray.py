"""A managed Ray cluster on this machine: a head without work, and a node process a pool node.

Rules: only emulated pools are started here; every node has a folder, ports and a log of its own;
all is on loopback, and a token guards it from other users of the machine; nothing is left after
`down`; what a busy machine breaks (a head that is late, a port that was free and is taken) is
tried again. Ray itself isn't imported here.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator import supervisor
from orchestrator.adapters.raycluster import access, machine
from orchestrator.adapters.raycluster.machine import HOST
from orchestrator.adapters.rayqueries.chip_numbering import NUMBERED, numbering
from orchestrator.core.errors import ClusterError
from orchestrator.core.settings import ClusterSettings
from orchestrator.core.spec.hardware import Pool
from orchestrator.supervisor import file_modes

SERVICE = "ray"
HEAD = "head"
NODE_TRIES = 4
CLUSTER_TRIES = 3  # each with other ports
SMALLEST_STORE = 78_643_200
_MB = 1_000_000
# What a start with other ports, a moment later, may not meet again.
_PASSES = re.compile(r"ended with|in use|refused|No node info found", re.IGNORECASE)

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_memory_monitor_refresh_ms": "0",  # it watches the whole machine
    "RAY_process_group_cleanup_enabled": "1",
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "4",
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",  # replicas listen on ports of their own
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}


@dataclass(frozen=True, slots=True)
class RayService:
    """A managed cluster that is up.

    Attributes:
        address: Of its head node, `HOST:PORT`.
        dashboard: Address of its dashboard and job server.
        pools: What was started for each pool, as a line.
        processes: Ids of the living node processes, by node name.
    """

    address: str
    dashboard: str
    pools: Mapping[str, str]
    processes: Mapping[str, int]


def up(home: Path, pools: Mapping[str, Pool], settings: ClusterSettings) -> str:
    """Start the cluster of `home` with `pools`, unless it runs, and return its address.

    Raises:
        ClusterError: It can't be started, or the one that runs lacks a pool.
    """
    real = [name for name, pool in pools.items() if not pool.emulated]
    if real:
        hint = "set cluster.address or RAY_ADDRESS to the cluster that has it"
        raise ClusterError(f"pool {real[0]!r} is not emulated and can't be started here; {hint}")
    running = find(home)
    if running is None:
        running = _start(home, pools, settings)
    _match(running, pools)
    return running.address


def find(home: Path) -> RayService | None:
    """Return the cluster of `home` when it is up, and let this process into it.

    Raises:
        ClusterError: What is recorded of it can't be read.
    """
    try:
        service = supervisor.find(home, SERVICE)
    except supervisor.ServiceError as error:
        raise ClusterError(str(error)) from error
    if service is None or HEAD not in service.processes:
        return None
    access.use_token(_token(home))
    return _public(service)


def down(home: Path) -> bool:
    """Stop the cluster of `home`; return whether there was one.

    Raises:
        ClusterError: What is recorded of it can't be read.
    """
    try:
        return supervisor.stop(home, SERVICE)
    except supervisor.ServiceError as error:
        raise ClusterError(str(error)) from error


def describe(pool: Pool) -> str:
    """Return what is started for `pool`, as a line; equal lines are equal clusters."""
    chips = f"{pool.devices_per_node} {pool.accelerator.resource or 'device'}"
    labels = ", ".join(f"{key}={value}" for key, value in sorted(pool.selector.items()))
    return f"{pool.nodes} x ({chips}, {pool.cpus_per_node} CPU), {labels}"


# --- start ------------------------------------------------------------------------------------


def _start(home: Path, pools: Mapping[str, Pool], settings: ClusterSettings) -> RayService:
    token = _token(home)
    file_modes.private_folder(token.parent)
    access.make_token(token)
    access.use_token(token)
    began = time.monotonic()
    for left in reversed(range(CLUSTER_TRIES)):
        supervisor.clear(home, SERVICE)  # one whose head is lost
        try:
            return _public(_try_start(home, token, pools, settings))
        except supervisor.ServiceError as error:
            soon = time.monotonic() - began < settings.start / CLUSTER_TRIES
            if left and soon and _PASSES.search(str(error)):
                continue
            message = f"the local Ray cluster can't be started: {error}; its logs are in"
            raise ClusterError(f"{message} {str(token.parent)!r}") from error
    raise AssertionError("the last try returns or raises")


def _try_start(
    home: Path, token: Path, pools: Mapping[str, Pool], settings: ClusterSettings
) -> supervisor.Service:
    root = machine.root(home)
    nodes = [(f"{name}-{n}", pool) for name, pool in pools.items() for n in range(pool.nodes)]
    ports = machine.free_ports()
    gcs, dashboard = next(ports), next(ports)
    store = max(SMALLEST_STORE, settings.object_store_mb * _MB)
    chips = {pool.accelerator.resource or "GPU" for pool in pools.values()} - {"GPU"}
    common = _Common(root, gcs, store, token, tuple(sorted(chips)))
    processes = [common.head(ports, dashboard)]
    processes += _in_turn([common.node(name, pool, ports) for name, pool in nodes])
    return supervisor.start(
        home,
        SERVICE,
        processes,
        info={
            "address": f"{HOST}:{gcs}",
            "dashboard": f"http://{HOST}:{dashboard}",
            "pools": {name: describe(pool) for name, pool in pools.items()},
        },
        temporary=[root],
        timeout=settings.start,
    )


def _in_turn(nodes: list[supervisor.Process]) -> list[supervisor.Process]:
    """Let each node wait for an earlier one: Ray gives each 30 s, and each keeps a core busy."""
    width = max(1, (os.cpu_count() or 1) // 2)
    waits = [replace(node, after=nodes[i].ready) for i, node in enumerate(nodes[width:])]
    return [*nodes[:width], *waits]


@dataclass(frozen=True, slots=True)
class _Common:
    """What all node processes share."""

    root: Path
    gcs: int
    store: int
    token: Path
    chips: tuple[str, ...]

    def head(self, ports: Iterator[int], dashboard: int) -> supervisor.Process:
        params = {
            "gcs_server_port": self.gcs,
            "num_cpus": 0,
            "num_gpus": 0,
            "no_monitor": True,  # no autoscaler here
            "dashboard_host": HOST,
            "dashboard_port": dashboard,
        }
        return self._process(HEAD, params, ports)

    def node(self, name: str, pool: Pool, ports: Iterator[int]) -> supervisor.Process:
        resource, count = pool.accelerator.resource, pool.devices_per_node
        params = {
            "gcs_address": f"{HOST}:{self.gcs}",
            "num_cpus": pool.cpus_per_node,
            "num_gpus": count if resource == "GPU" else 0,
            "resources": {resource: count} if resource and resource != "GPU" else {},
            "labels": pool.selector,
        }
        return self._process(name, params, ports)

    def _process(
        self, name: str, own: Mapping[str, object], ports: Iterator[int]
    ) -> supervisor.Process:
        ready = next(ports)
        params = {
            **own,
            "node_name": name,
            "node_ip_address": HOST,
            "temp_dir": str(self.root / name),
            "dashboard_agent_listen_port": next(ports),
            "object_store_memory": self.store,
            "min_worker_port": 0,
            "max_worker_port": 0,
            "include_log_monitor": False,
        }
        module = "orchestrator.adapters.raycluster.node"
        return supervisor.Process(
            name=name,
            argv=(sys.executable, "-P", "-m", module, json.dumps(params), str(ready)),
            env={
                **_ENVIRONMENT,
                **access.managed_environment(self.token),
                NUMBERED: numbering(self.chips),
                "TMPDIR": machine.short_temporary(self.root),
            },
            tries=1 if name == HEAD else NODE_TRIES,
            after=None if name == HEAD else (HOST, self.gcs),
            ready=(HOST, ready),
        )


def _match(running: RayService, pools: Mapping[str, Pool]) -> None:
    for name, pool in pools.items():
        wanted, runs = describe(pool), running.pools.get(name)
        if runs != wanted:
            known = ", ".join(f"{key!r}: {line}" for key, line in running.pools.items())
            message = f"the local Ray cluster runs {{{known}}}, but {name!r}: {wanted} is needed"
            raise ClusterError(f"{message}; run `orchestrator down` first")


def _public(service: supervisor.Service) -> RayService:
    info: Mapping[str, Any] = service.info
    return RayService(info["address"], info["dashboard"], info["pools"], service.processes)


def _token(home: Path) -> Path:
    return home.absolute() / "services" / "ray.token"
