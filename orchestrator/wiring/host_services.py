"""The services of this machine: the cluster and the tracking server, started, found, stopped."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from orchestrator import supervisor
from orchestrator.core.errors import ClusterError
from orchestrator.core.own_host import is_loopback
from orchestrator.core.settings import Settings, TrackingSettings
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import PoolStatus
from orchestrator.supervisor import Tenancy
from orchestrator.supervisor.record import folder_of
from orchestrator.wiring import tracking
from orchestrator.wiring.adapters import (
    DATABASE_VARIABLE,
    TRACKING_VARIABLE,
    cluster_address,
    run_worker,
    tracking_address,
)
from orchestrator.wiring.foreign_cluster import of_job_server
from orchestrator.wiring.home_folder import HOME_VARIABLE

REAPER = "reaper"


def check_services(settings: Settings, home: Path, *, gateway: bool) -> None:
    """Check what others run for us, and the port of the `gateway`, before anything is started.

    Raises:
        ClusterError: No head node answers at the address of the cluster, it does not let this
            process in, or this machine is no node of it.
        TrackingError: No MLflow server answers at its address.
        ServingError: The gateway's port is taken, or its certificate is not there.
    """
    from orchestrator.adapters import gateway_service
    from orchestrator.adapters.raycluster import access
    from orchestrator.adapters.rayqueries import gcs

    address, uri = cluster_address(settings), tracking_address(settings.tracking)
    if settings.cluster.kind == "ray" and address:
        access.check(address)
        if "://" in address:
            raise ClusterError(of_job_server(address))
        gcs.admit(address)
    if settings.tracking.enabled and uri:
        tracking.check(uri)
    if gateway:
        gateway_service.check(home, settings.gateway)


def foreign() -> Mapping[str, Callable[[], None]]:
    """Return how to check each service that the environment names, by the variable that does."""
    from orchestrator.adapters.database import SqlDatabase
    from orchestrator.adapters.raycluster import access

    checks: Mapping[str, Callable[[str], object]] = {
        "RAY_ADDRESS": access.check,
        TRACKING_VARIABLE: tracking.check,
        DATABASE_VARIABLE: lambda url: SqlDatabase(url).runs(1),
    }
    named = {name: os.environ[name] for name in checks if os.environ.get(name)}
    return {name: partial(_check_value, checks[name], value) for name, value in named.items()}


def _check_value(check: Callable[[str], object], value: str) -> None:
    check(value)


def start_cluster(
    settings: Settings, home: Path, pools: Mapping[str, Pool], tenancy: Tenancy
) -> str:
    """Have the cluster up, and return its address.

    Raises:
        ClusterError: It can't be started, or the one that runs lacks a pool.
    """
    if settings.cluster.kind == "local":
        return ""
    address = cluster_address(settings)
    if address:
        return address
    from orchestrator.adapters.raycluster import managed_ray

    if managed_ray.find(home) is None:
        tenancy.started(managed_ray.SERVICE)
    return managed_ray.up(home, pools, settings.cluster)


def start_tracking(settings: Settings, home: Path, tenancy: Tenancy) -> str:
    """Have the tracking server up, and return its address.

    Raises:
        TrackingError: It can't be started or reached.
    """
    if not settings.tracking.enabled:
        return ""
    from orchestrator.adapters import mlflow_server

    uri = tracking_address(settings.tracking)
    if uri:
        tracking.check(uri)
        return uri
    if mlflow_server.find(home) is None:
        tenancy.started(mlflow_server.SERVICE)
    return mlflow_server.up(home, settings.tracking.start)


def start_reaper(settings: Settings, home: Path, tenancy: Tenancy) -> None:
    """Have somebody look after runs whose controller dies: they are shown, or may go on."""
    if not settings.tracking.enabled and not cluster_address(settings):
        return
    if supervisor.elsewhere(home, REAPER):
        return
    running = supervisor.find(home, REAPER)
    if running is None or not running.processes:
        tenancy.started(REAPER)
        argv = (sys.executable, "-m", "orchestrator", "_reap")
        process = supervisor.Process(name=REAPER, argv=argv, env={HOME_VARIABLE: str(home)})
        supervisor.start(home, REAPER, [process])


def keep_reaper(home: Path) -> None:
    """Have the reaper of `home` stay until it is stopped, whether anything needs it or not."""
    _stays(home).touch()


def reaper_stays(home: Path) -> bool:
    """Return whether the reaper of `home` is kept."""
    return _stays(home).exists()


def stop_reaper(home: Path) -> bool:
    """Stop what looks after the runs of `home`; return whether there was one."""
    _stays(home).unlink(missing_ok=True)
    return supervisor.stop(home, REAPER)


def _stays(home: Path) -> Path:
    return folder_of(home) / f"{REAPER}.stays"


def start_gateway(settings: Settings, home: Path, address: str, tenancy: Tenancy) -> str:
    """Have the gateway up, and the reconciler of its endpoints; return its address.

    Raises:
        ServingError: It can't be started, or runs on another port.
    """
    from orchestrator.adapters import gateway_service

    if gateway_service.find(home) is None:
        tenancy.started(gateway_service.SERVICE)
    env, node = {HOME_VARIABLE: str(home)}, partial(_node_here, address)
    return gateway_service.up(home, settings.gateway, address, env, node)


def _node_here(address: str) -> str:
    """Return by which address the cluster at `address` knows this host; empty where it doesn't."""
    from orchestrator.adapters.rayqueries import gcs

    try:
        facts = gcs.ask(address)
    except ClusterError:
        return ""
    nodes = facts.nodes if facts else ()
    return next((n.host for n in nodes if not is_loopback(n.host) and gcs.is_here(n.host)), "")


def find_gateway(home: Path) -> str | None:
    """Return the address of the gateway that `home` runs on this host, `None` without one."""
    from orchestrator.adapters import gateway_service

    return gateway_service.find(home)


def gateway_port(home: Path) -> int | None:
    """Return the port at which that one listens, `None` without one."""
    from orchestrator.adapters import gateway_service

    return gateway_service.port(home)


def stop_gateway(home: Path) -> bool:
    """Stop the gateway of `home`; return whether there was one."""
    from orchestrator.adapters import gateway_service

    return gateway_service.down(home)


def stop_cluster(home: Path) -> bool:
    """Stop the cluster that `home` started; return whether there was one."""
    from orchestrator.adapters.raycluster import managed_ray

    return managed_ray.down(home)


def uses_ours(settings: Settings) -> bool:
    """Return whether `settings` mean to run on the cluster that a home starts itself."""
    return settings.cluster.kind == "ray" and not settings.cluster.address


def raise_if_leaving(settings: Settings, home: Path) -> None:
    """Return while a run may use the cluster of `home`.

    Raises:
        ClusterError: It is about to be stopped: Ray would take that for a lost node, ask the head
            that goes next, and end this process a minute later.
    """
    if supervisor.is_leaving(home) and uses_ours(settings) and not cluster_address(settings):
        raise ClusterError("the cluster is being stopped by `orchestrator down`")


def stop_tracking(home: Path) -> bool:
    """Stop the tracking server that `home` started; return whether there was one."""
    from orchestrator.adapters import mlflow_server

    return mlflow_server.down(home)


def running(home: Path) -> dict[str, str]:
    """Return the addresses of the services that `home` started and that still run."""
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.raycluster import managed_ray

    cluster = managed_ray.find(home)
    uri = mlflow_server.find(home)
    addresses = {"cluster": cluster.address if cluster else "", "MLflow": uri or ""}
    return {name: address for name, address in addresses.items() if address}


def services_elsewhere(home: Path) -> dict[str, str]:
    """Return the hosts of what runs for `home`, but on others than this, or out of its sight."""
    from orchestrator.adapters import gateway_service, mlflow_server
    from orchestrator.adapters.raycluster import managed_ray

    services = {
        "cluster": managed_ray.SERVICE,
        "MLflow": mlflow_server.SERVICE,
        "gateway": gateway_service.SERVICE,
        "reaper": REAPER,
    }
    hosts = {name: supervisor.elsewhere(home, service) for name, service in services.items()}
    return {name: host for name, host in hosts.items() if host}


def to_start(settings: Settings, home: Path) -> list[str]:
    """Return what `home` would start for `settings`: what is neither up nor somebody else's."""
    ours = {
        "cluster": uses_ours(settings) and not cluster_address(settings),
        "MLflow": settings.tracking.enabled and not tracking_address(settings.tracking),
    }
    up = running(home) if any(ours.values()) else {}
    return [name for name, wanted in ours.items() if wanted and name not in up]


def find_cluster(settings: Settings, home: Path) -> str:
    """Return the address of the cluster of `settings`; empty where that is down or local."""
    if settings.cluster.kind == "local":
        return ""
    return cluster_address(settings) or running(home).get("cluster", "")


def pool_states(settings: Settings, home: Path) -> Mapping[str, PoolStatus]:
    """Return the live state of the fleet's pools; empty where no cluster is up."""
    address = find_cluster(settings, home)
    if not address:
        return {}
    from orchestrator.adapters.raycluster.cluster import RayCluster

    connected = RayCluster(address, run_worker)
    try:
        return connected.pools(settings.fleet.pools)
    finally:
        connected.close()


def node_identities(
    settings: Settings, home: Path, pools: Mapping[str, Pool]
) -> Mapping[str, Mapping[str, str]]:
    """Return what the live nodes of `pools` are told apart by; empty where no cluster is up."""
    address = find_cluster(settings, home) if pools else ""
    if not address:
        return {}
    from orchestrator.adapters.raycluster.cluster import RayCluster

    connected = RayCluster(address, run_worker)
    try:
        return connected.identities(pools)
    finally:
        connected.close()


def stacks(
    settings: Settings, home: Path, key: str, rank: int, *, seconds: float, form: str
) -> bytes:
    """Return what worker `rank` of attempt `key` does now, or what it was in over some `seconds`.

    Raises:
        ClusterError: No cluster is up, it has no such worker, or that can't be looked at.
    """
    address = find_cluster(settings, home)
    if not address:
        raise ClusterError("no cluster is up; stacks are those of workers on a Ray cluster")
    from orchestrator.adapters.raycluster.cluster import RayCluster

    connected = RayCluster(address, run_worker)
    try:
        return connected.stacks(key, rank, seconds=seconds, form=form)
    finally:
        connected.close()


def views(settings: TrackingSettings, home: Path) -> Mapping[str, str]:
    """Have MLflow up, and return the addresses of the ready-made views by name.

    Raises:
        TrackingError: It can't be started or reached.
    """
    from orchestrator.adapters import mlflow_server
    from orchestrator.adapters.mlflow_tracker import views as ready_made

    uri = tracking_address(settings) or mlflow_server.up(home, settings.start)
    return ready_made.links(uri, settings.experiment, tracking.access(uri))
