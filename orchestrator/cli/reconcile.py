"""`orchestrator _reconcile ADDRESS`: the service that keeps endpoints as the store says."""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.spec.hardware import Role
from orchestrator.endpoints.outside import SECONDS_BETWEEN_LOOKS as SECONDS_BETWEEN_OUTSIDE_LOOKS
from orchestrator.endpoints.outside import OutsideWatch
from orchestrator.endpoints.overflow import Overflow
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.endpoints.revisions import Revisions
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.supervisor import holder

SECONDS_BETWEEN_LOOKS = 0.5

# What was started for an endpoint, and what it is to do: waited for at each look.
_started: list[tuple[subprocess.Popen[bytes], str, str]] = []


def run(args: argparse.Namespace) -> Exit:
    """Look every moment, until the service is stopped."""
    at, clock = wiring.home(), wiring.clock()
    threading.Thread(target=_watch_outside, args=(at,), name="outside", daemon=True).start()
    wiring.running(at)  # which lets this process into a cluster of ours
    store = wiring.endpoint_store(at)
    replicas = wiring.replicas(at, args.address)
    reconciler = Reconciler(
        (store, replicas, clock),
        _tell,
        _move,
        holder=holder.name(),
        adopts=not wiring.shares_database(),
    )
    revisions = Revisions(store, replicas, clock)
    traffic = wiring.traffic(at)
    overflow = Overflow(store, traffic, revisions, clock, _tell, _help)
    best_effort, served = BestEffort(), False
    while True:
        looked = outcome(reconciler.reconcile, but=())
        if looked.error is not None:
            best_effort.failed("looks at endpoints were not possible", looked.error)
        elif not reconciler.leads:
            served = False
        elif looked.value:
            served = True
            best_effort.tell(
                "looks for requests that wait were not possible", overflow.reconcile, but=()
            )
        elif served:  # Serve itself goes with the last endpoint
            stopped = outcome(replicas.stop, but=())
            served = stopped.error is not None or not stopped.value
        for endpoint in _failed():
            reconciler.move_failed(endpoint)
        clock.sleep(SECONDS_BETWEEN_LOOKS)


def _watch_outside(at: Path) -> None:
    """Look after servers outside, which may take long to say nothing: in a thread of its own."""
    clock, best_effort = wiring.clock(), BestEffort()
    watch = OutsideWatch(
        wiring.endpoint_store(at), wiring.served_models, _tell, f"{holder.name()}/outside"
    )
    while True:
        best_effort.tell("looks at servers outside were not possible", watch.look, but=())
        clock.sleep(SECONDS_BETWEEN_OUTSIDE_LOOKS)


def _move(endpoint: str, pool: str) -> None:
    """Have the endpoint switched, by a run that is recorded as any other."""
    # Nobody serves at this moment: it is no time to qualify.
    _start(endpoint, "switch", endpoint, f"pool={pool}", "--no-qualify")


def _help(leading: Deployment, pool: str) -> None:
    """Have the same deployed on another pool, as the overflow of its endpoint; likewise."""
    there = f"pipeline.stages.{leading.stage}.endpoint.rollout.overflow=true"
    name = leading.endpoint.name
    _start(name, "deploy", name, f"roles.{Role.SERVE}={pool}", there)


def _start(endpoint: str, *words: str) -> None:
    argv = [sys.executable, "-m", "orchestrator", *words]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)  # noqa: S603 - our own command
    _started.append((process, endpoint, words[0]))


def _failed() -> Iterator[str]:
    """Yield the endpoints whose switch has failed, and forget what has ended."""
    for ended in [one for one in _started if one[0].poll() is not None]:
        _started.remove(ended)
        process, endpoint, verb = ended
        if process.returncode:
            _tell(f"{verb} for {endpoint} ended with exit code {process.returncode}")
            if verb == "switch":
                yield endpoint


def _tell(line: str) -> None:
    print(line, flush=True)
