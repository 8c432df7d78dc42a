"""The services of this machine: the cluster and the tracking server, started, found, stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from orchestrator import supervisor
from orchestrator.core.errors import ClusterError
from orchestrator.core.settings import Settings, TrackingSettings
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import PoolStatus
from orchestrator.ports import ClusterJob
from orchestrator.supervisor import Tenancy
from orchestrator.wiring.adapters import (
    DATABASE_VARIABLE,
    cluster_address,
    run_worker,
    tracking_address,
)
from orchestrator.wiring.home_folder import HOME_VARIABLE

REAPER = "reaper"


def check_services(found: Settings, at: Path, *, gateway: bool) -> None:
    """Check what others run for us, and the port of the `gateway`, before anything is started.

    Raises:
        ClusterError: No head node answers at the address of the cluster.
        TrackingError: No MLflow server answers at its address.
        ServingError: The gateway's port is taken, or its certificate is not there.
    """
    from orchestrator.adapters import gateway_service, mlflow_server
    from orchestrator.adapters.raycluster import access

    address, uri = cluster_address(found), tracking_address(found.tracking)
    if found.cluster.kind == "ray" and address:
        access.check(address)
    if found.tracking.enabled and uri:
        mlflow_server.check(uri)
    if gateway:
        gateway_service.check(at, found.gateway)


def foreign() -> Mapping[str, Callable[[], None]]:
    """Return how to check each service that the environment names, by the variable that does."""
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.database import SqlDatabase
    from orchestrator.adapters.raycluster import access

    checks: Mapping[str, Callable[[str], object]] = {
        "RAY_ADDRESS": access.check,
        "MLFLOW_TRACKING_URI": mlflow_server.check,
        DATABASE_VARIABLE: lambda url: SqlDatabase(url).runs(1),
    }
    named = {name: os.environ[name] for name in checks if os.environ.get(name)}
    return {name: partial(_asked, checks[name], value) for name, value in named.items()}


def _asked(check: Callable[[str], object], value: str) -> None:
    check(value)


def start_cluster(found: Settings, at: Path, pools: Mapping[str, Pool], tenancy: Tenancy) -> str:
    """Have the cluster up, and return its address.

    Raises:
        ClusterError: It can't be started, or the one that runs lacks a pool.
    """
    if found.cluster.kind == "local":
        return ""
    address = cluster_address(found)
    if address:
        return address
    from orchestrator.adapters.raycluster import service

    if service.find(at) is None:
        tenancy.started(service.SERVICE)
    return service.up(at, pools, found.cluster)


def start_tracking(found: Settings, at: Path, tenancy: Tenancy) -> str:
    """Have the tracking server up, and return its address.

    Raises:
        TrackingError: It can't be started or reached.
    """
    if not found.tracking.enabled:
        return ""
    from orchestrator.adapters import mlflow_server

    uri = tracking_address(found.tracking)
    if uri:
        mlflow_server.check(uri)
        return uri
    if mlflow_server.find(at) is None:
        tenancy.started(mlflow_server.SERVICE)
    return mlflow_server.up(at)


def start_reaper(found: Settings, at: Path, tenancy: Tenancy) -> None:
    """Have somebody look after runs whose controller dies, where a tracking server shows them."""
    if not found.tracking.enabled:
        return
    running = supervisor.find(at, REAPER)
    if running is None or not running.processes:
        tenancy.started(REAPER)
        argv = (sys.executable, "-m", "orchestrator", "_reap")
        process = supervisor.Process(name=REAPER, argv=argv, env={HOME_VARIABLE: str(at)})
        supervisor.start(at, REAPER, [process])


def stop_reaper(at: Path) -> bool:
    """Stop what looks after the runs of home `at`; return whether there was one."""
    return supervisor.stop(at, REAPER)


def start_gateway(found: Settings, at: Path, address: str, tenancy: Tenancy) -> str:
    """Have the gateway up, and the reconciler of its endpoints; return its address.

    Raises:
        ServingError: It can't be started, or runs on another port.
    """
    from orchestrator.adapters import gateway_service

    if gateway_service.find(at) is None:
        tenancy.started(gateway_service.SERVICE)
    return gateway_service.up(at, found.gateway, address, {HOME_VARIABLE: str(at)})


def find_gateway(at: Path) -> str | None:
    """Return the address of the gateway that home `at` runs on this host, `None` without one."""
    from orchestrator.adapters import gateway_service

    return gateway_service.find(at)


def stop_gateway(at: Path) -> bool:
    """Stop the gateway of home `at`; return whether there was one."""
    from orchestrator.adapters import gateway_service

    return gateway_service.down(at)


def stop_cluster(at: Path) -> bool:
    """Stop the cluster that home `at` started; return whether there was one."""
    from orchestrator.adapters.raycluster import service

    return service.down(at)


def uses_ours(found: Settings) -> bool:
    """Return whether what `found` means runs on the cluster that a home starts itself."""
    return found.cluster.kind == "ray" and not found.cluster.address


def raise_if_leaving(found: Settings, at: Path) -> None:
    """Return while a run may use the cluster of home `at`.

    Raises:
        ClusterError: It is about to be stopped: Ray would take that for a lost node, ask the head
            that goes next, and end this process a minute later.
    """
    if supervisor.is_leaving(at) and uses_ours(found) and not cluster_address(found):
        raise ClusterError("the cluster is being stopped by `orchestrator down`")


def stop_tracking(at: Path) -> bool:
    """Stop the tracking server that home `at` started; return whether there was one."""
    from orchestrator.adapters import mlflow_server

    return mlflow_server.down(at)


def submit(found: Settings, at: Path, run: str, flags: Sequence[str]) -> ClusterJob:
    """Hand run `run` to a controller that runs as a Ray job; return the job.

    `flags` are those of the command `_drive`.

    Raises:
        ClusterError: The cluster has no job server, or refuses the job.
    """
    from orchestrator.adapters.raycluster import jobs

    words = [sys.executable, "-m", "orchestrator", "_drive", run, *flags]
    environment = {HOME_VARIABLE: str(at), **_passed_on()}
    address = cluster_address(found)
    return jobs.submit(at, address, words, environment)


def _passed_on() -> dict[str, str]:
    names = ("MLFLOW_TRACKING_URI", "ORCHESTRATOR_DATABASE", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ}


def running(at: Path) -> dict[str, str]:
    """Return the addresses of the services that home `at` started and that still run."""
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.raycluster import service

    found = service.find(at)
    uri = mlflow_server.find(at)
    addresses = {"cluster": found.address if found else "", "MLflow": uri or ""}
    return {name: address for name, address in addresses.items() if address}


def to_start(found: Settings, at: Path) -> list[str]:
    """Return what home `at` would start for `found`: what is neither up nor somebody else's."""
    ours = {
        "cluster": uses_ours(found) and not cluster_address(found),
        "MLflow": found.tracking.enabled and not tracking_address(found.tracking),
    }
    up = running(at) if any(ours.values()) else {}
    return [name for name, wanted in ours.items() if wanted and name not in up]


def find_cluster(found: Settings, at: Path) -> str:
    """Return the address of the cluster that `found` means; empty where that is down or local."""
    if found.cluster.kind == "local":
        return ""
    return cluster_address(found) or running(at).get("cluster", "")


def pool_states(found: Settings, at: Path) -> Mapping[str, PoolStatus]:
    """Return the live state of the fleet's pools; empty where no cluster is up."""
    address = find_cluster(found, at)
    if not address:
        return {}
    from orchestrator.adapters.raycluster.cluster import RayCluster

    connected = RayCluster(address, run_worker)
    try:
        return connected.pools(found.fleet.pools)
    finally:
        connected.close()


def node_identities(
    found: Settings, at: Path, pools: Mapping[str, Pool]
) -> Mapping[str, Mapping[str, str]]:
    """Return what the live nodes of `pools` are told apart by; empty where no cluster is up."""
    address = find_cluster(found, at) if pools else ""
    if not address:
        return {}
    from orchestrator.adapters.raycluster.cluster import RayCluster

    connected = RayCluster(address, run_worker)
    try:
        return connected.identities(pools)
    finally:
        connected.close()


def views(tracking: TrackingSettings, at: Path) -> Mapping[str, str]:
    """Have MLflow up, and return the addresses of the ready-made views by name.

    Raises:
        TrackingError: It can't be started or reached.
    """
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.mlflow_tracker import views as ready_made
    from orchestrator.wiring.tracking import access

    uri = tracking_address(tracking) or mlflow_server.up(at)
    return ready_made.links(uri, tracking.experiment, access(uri))
