"""The services of a home while they are used: started where they are down, and given back.

A service that was started for a run is stopped after it, unless another run uses it, or the run
left an endpoint behind that needs it. A service that was up before stays up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator import wiring
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.plan import Plan
from orchestrator.supervisor import Tenancy


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Where the services are; empty where they aren't needed."""

    cluster: str
    tracking: str


def startable(settings: Settings, planned: Plan) -> Mapping[str, Pool]:
    """Return the pools that a cluster on this machine needs: the plan's, and all emulated ones.

    All of them, so that a later launch with other roles finds its pools on the same cluster.
    """
    emulated = {n: p for n, p in settings.fleet.pools.items() if p.emulated and p.available}
    return {**emulated, **planned.pools}


def needs_gateway(settings: Settings) -> bool:
    """Return whether a pipeline has an endpoint, which clients reach by the gateway."""
    return any(stage.endpoint for stage in settings.pipeline.stages)


def starting(settings: Settings) -> str:
    """Return what will be started before a run of `settings` begins, in words; often nothing."""
    words = {"cluster": "the cluster"}
    missing = wiring.to_start(settings, wiring.home())
    return " and ".join(words.get(name, name) for name in missing)


@contextmanager
def services(
    settings: Settings,
    home: Path,
    pools: Mapping[str, Pool],
    *,
    keep: Callable[[], bool],
    gateway: bool | None = None,
) -> Iterator[Addresses]:
    """Have the services up; afterwards stop those that were started here, unless `keep()`.

    The gateway is one of them where the pipeline has an endpoint, or `gateway` says so. What can
    be known to be in the way is refused before anything is started.

    Raises:
        ClusterError: The cluster can't be started or reached.
        TrackingError: The tracking server can't be started or reached.
        ServingError: The gateway can't be started.
    """
    serving = settings.cluster.kind != "local" and (
        needs_gateway(settings) if gateway is None else gateway
    )
    wiring.check_services(settings, home, gateway=serving)
    with Tenancy(home) as tenancy:
        with ThreadPoolExecutor(1) as beside:
            tracking = beside.submit(wiring.start_tracking, settings, home, tenancy)
            try:
                address = wiring.start_cluster(settings, home, pools, tenancy)
            finally:
                uri = tracking.result()
        wiring.start_reaper(settings, home, tenancy)
        if address and serving:
            wiring.start_gateway(settings, home, address, tenancy)
        yield Addresses(cluster=address, tracking=uri)
        if keep():
            tenancy.keep()


@contextmanager
def handing_over(
    settings: Settings, home: Path, pools: Mapping[str, Pool], *, gateway: bool | None = None
) -> Iterator[None]:
    """Have all that a controller needs which is handed over, and leave it up.

    One on another machine starts there what it needs: nothing is started here.

    Raises:
        ConfigError: A controller on another machine would not have what it needs.
        ClusterError: The cluster can't be started or reached, or its server of jobs can't.
    """
    if wiring.hands_far(settings):
        wiring.check_handing_over(settings)
        yield
        return
    with services(settings, home, pools, keep=lambda: True, gateway=gateway):
        if wiring.cluster_address(settings):
            wiring.job_server(settings)
        yield


@contextmanager
def tracking_alone(settings: Settings, home: Path) -> Iterator[Addresses]:
    """Have the tracking server up, and the cluster as it is: empty where it is down.

    Raises:
        TrackingError: The tracking server can't be started or reached.
    """
    with Tenancy(home) as tenancy:
        uri = wiring.start_tracking(settings, home, tenancy)
        yield Addresses(cluster=wiring.find_cluster(settings, home), tracking=uri)
