"""`orchestrator down`: stop all that runs on this machine.

Runs in progress are named, and end only where the user says so; they can be resumed. Their
controllers leave first: a cluster that goes while they hold on to it would take them along.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from orchestrator import supervisor, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import runs
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import HeldError

SECONDS_TO_LEAVE = 75.0  # a minute for the last words in MLflow, and what it takes to let go
SECONDS_BETWEEN_LOOKS = 0.3


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Stop the cluster, with its endpoints, and the tracking server; state stays."""
    at = wiring.home()
    up = {**wiring.running(at), "gateway": wiring.find_gateway(at)}
    lines = [f"stop the {name} at {where}" for name, where in up.items() if where]
    lines += [f"end run {name}, which can be resumed" for name in _in_progress()]
    lines += [f"take away endpoint {name}" for name in _served() if "cluster" in up]
    return [Step("\n".join(lines) or "nothing is running", partial(_stop, args))]


def _stop(args: argparse.Namespace) -> Exit:
    at = wiring.home()
    stops = {
        "reaper": wiring.stop_reaper,
        "gateway": wiring.stop_gateway,  # and the reconciler, which would deploy anew what goes
        "cluster": wiring.stop_cluster,
        "MLflow": wiring.stop_tracking,
    }
    going = _in_progress()
    if not args.yes and not _may(going, _served()):
        print("Nothing was stopped.")
        return Exit.CANCELLED
    with supervisor.leaving(at):
        _let_go(going)
        stopped = [name for name, stop in stops.items() if stop(at)]
    if "cluster" in stopped:
        wiring.forget_endpoints(at, "stopped by `orchestrator down`")
    print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
    for name in going:
        print(f"To go on with a run that was in progress: orchestrator resume {name}")
    return Exit.SUCCEEDED


def _in_progress() -> list[str]:
    """Return the runs that live controllers drive on the cluster of this home."""
    if not wiring.has_store(wiring.home()):
        return []
    store = wiring.event_store(wiring.home())
    found = [runs.load(store, store.header(lease.run)) for lease in store.leases()]
    return sorted(
        one.header.run
        for one in found
        if runs.lease_state(store, one) is LeaseState.ALIVE
        and wiring.uses_ours(hydra_config.parse(one.header.config))
    )


def _served() -> list[str]:
    if not wiring.has_store(wiring.home()):
        return []
    return sorted(life.name for life in wiring.endpoints_here(wiring.home()))


def _may(going: list[str], served: list[str]) -> bool:
    """Ask whether runs and endpoints may be stopped.

    Raises:
        HeldError: Runs are in progress, and there is no terminal to ask. Endpoints alone are
            stopped then: this is the command that takes them away.
    """
    if not going and not (served and sys.stdin.isatty()):
        return True
    what = [f"in progress: {', '.join(going)}"] if going else []
    what += [f"served: {', '.join(served)}"] if served else []
    named = "; ".join(what)
    if not sys.stdin.isatty():
        raise HeldError(f"{named}; `orchestrator down --yes` ends them (runs can be resumed)")
    answer = input(f"{named[0].upper()}{named[1:]}.\nStop them? Runs can be resumed. [y/N] ")
    return answer.strip().lower() in {"y", "yes"}


def _let_go(going: list[str]) -> None:
    """Wait until the controllers have left their runs, for a while."""
    if not going:
        return
    print(f"Waiting for {len(going)} controllers to leave ...", flush=True)
    clock = wiring.clock()
    until = clock.monotonic() + SECONDS_TO_LEAVE
    while _in_progress() and clock.monotonic() < until:
        clock.sleep(SECONDS_BETWEEN_LOOKS)
