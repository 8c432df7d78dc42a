"""What runs on this machine for a home: the cluster, MLflow, the gateway, the reaper."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from orchestrator import supervisor, wiring
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import ClusterError
from orchestrator.core.settings import Settings, TrackingSettings
from orchestrator.messages import Lease
from orchestrator.service import driving, runs
from orchestrator.service.change import Change
from orchestrator.supervisor import holder

SECONDS_TO_LEAVE = 75.0  # a minute for the last words in MLflow, and what it takes to let go
SECONDS_BETWEEN_LOOKS = 0.3


def up(
    settings: Settings, stay: Callable[[driving.Addresses], None] | None = None
) -> Change[driving.Addresses]:
    """Start the cluster with the pools of a fleet, MLflow, and the gateway where endpoints are.

    They are left up, and so is the reaper. Where `stay` is given they are up until it returns or
    is interrupted, with a gateway in any case; what was up before stays.

    Raises, when it is made:
        ClusterError: The cluster can't be started or reached.
        TrackingError: The tracking server can't be started or reached.
        ServingError: The gateway can't be started.
    """
    usable = {name: pool for name, pool in settings.fleet.pools.items() if pool.available}

    def make() -> driving.Addresses:
        home = wiring.home()
        served = stay is not None or bool(use().endpoints) or driving.needs_gateway(settings)
        with driving.services(
            settings, home, usable, keep=lambda: stay is None, gateway=served
        ) as addresses:
            if stay is None:
                wiring.keep_reaper(home)
            else:
                stay(addresses)
            return addresses

    return Change(f"have the cluster up with pools {', '.join(usable)}, and MLflow", make)


@dataclass(frozen=True, slots=True)
class Use:
    """Who uses the services: the `runs` in progress, and the `endpoints` that are served."""

    runs: Sequence[str]
    endpoints: Sequence[str]


def use() -> Use:
    """Return who uses the services of this home now."""
    home = wiring.home()
    if not wiring.has_database(home):
        return Use((), ())
    return Use(_in_progress(), sorted(life.name for life in wiring.endpoints_here(home)))


def down(may: Callable[[Use], bool], waiting: Callable[[int], None]) -> Change[Stopped | None]:
    """Stop all that runs on this machine, with its endpoints; state stays, runs can be resumed.

    Controllers leave first: a cluster that goes while they hold on to it would take them along.
    `may` is asked whether those that use the services may be stopped; nothing is where it says
    no. `waiting` is told for how many controllers it waits.

    Raises:
        ClusterError: They run on another host.
    """
    home = wiring.home()
    for name, host in wiring.services_elsewhere(home).items():
        raise ClusterError(f"the {name} of {str(home)!r} runs on {host}; type it there")
    addresses = {**wiring.running(home), "gateway": wiring.find_gateway(home)}
    using = use()
    lines = [f"stop the {name} at {where}" for name, where in addresses.items() if where]
    lines += [f"end run {name}, which can be resumed" for name in using.runs]
    lines += [f"take away endpoint {name}" for name in using.endpoints if "cluster" in addresses]

    def make() -> Stopped | None:
        now = use()
        return _stop(now.runs, waiting) if may(now) else None

    return Change("\n".join(lines) or "nothing is running", make)


@dataclass(frozen=True, slots=True)
class Stopped:
    """The services that were stopped, and the runs that were in progress."""

    stopped: Sequence[str]
    runs: Sequence[str]


def _stop(going: Sequence[str], waiting: Callable[[int], None]) -> Stopped:
    home = wiring.home()
    stops = {
        "reaper": wiring.stop_reaper,
        "gateway": wiring.stop_gateway,  # and the reconciler, which would deploy anew what goes
        "cluster": wiring.stop_cluster,
        "MLflow": wiring.stop_tracking,
    }
    with supervisor.leaving(home):
        if going:
            waiting(len(going))
            _let_go()
        stopped = [name for name, stop in stops.items() if stop(home)]
    if "cluster" in stopped:
        wiring.forget_endpoints(home, "stopped by `orchestrator down`")
    return Stopped(stopped, going)


def _in_progress() -> list[str]:
    """Return the runs that live controllers drive on the cluster of this home.

    They are on this machine, as that cluster is; a database may know those of other homes too.
    """
    store = wiring.database(wiring.home())
    known = [lease for lease in store.leases() if _may_be_here(lease)]
    leased = [runs.load(store, store.header(lease.run)) for lease in known]
    return sorted(
        run.header.run
        for run in leased
        if runs.lease_state(store, run) is LeaseState.ALIVE
        and wiring.uses_ours(wiring.configs.parse(run.header.config))
    )


def _may_be_here(lease: Lease) -> bool:
    if not wiring.shares_database():
        return True
    pid = holder.pid(lease.holder)
    return pid is not None and supervisor.is_user(wiring.home(), pid)


def _let_go() -> None:
    """Wait until the controllers have left their runs, for a while."""
    clock = wiring.clock()
    until = clock.monotonic() + SECONDS_TO_LEAVE
    while _in_progress() and clock.monotonic() < until:
        clock.sleep(SECONDS_BETWEEN_LOOKS)


def views() -> Mapping[str, str]:
    """Have MLflow up, and return the addresses of the ready-made views of the runs."""
    return wiring.views(TrackingSettings(), wiring.home())
