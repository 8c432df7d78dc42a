"""`orchestrator _keep ADDRESS`: the service that keeps endpoints as the store says."""

from __future__ import annotations

import argparse
import subprocess
import sys

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.control.border import Telling, outcome
from orchestrator.core.endpoints import Deployment
from orchestrator.core.hardware import Role
from orchestrator.endpoints.overflow import Overflow
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.endpoints.revisions import Revisions

SECONDS_BETWEEN_LOOKS = 0.5
_started: list[subprocess.Popen[bytes]] = []  # asked now and then whether they have ended


def run(args: argparse.Namespace) -> Exit:
    """Look every moment, until the service is stopped."""
    at, clock = wiring.home(), wiring.clock()
    wiring.running(at)  # which lets this process into a cluster of ours
    store = wiring.endpoint_store(at)
    replicas = wiring.replicas(args.address)
    reconciler = Reconciler(store, replicas, clock, _tell, _move)
    revisions = Revisions(store, replicas, clock)
    traffic = wiring.traffic(at)
    overflow = Overflow(store, traffic, revisions, clock, _tell, _help)
    telling, served = Telling(), False
    while True:
        looked = outcome(reconciler.reconcile, but=())
        if looked.error is not None:
            telling.failed("looks at endpoints were not possible", looked.error)
        elif looked.value:
            served = True
            telling.tell(
                "looks for requests that wait were not possible", overflow.reconcile, but=()
            )
        elif served:  # Serve itself goes with the last endpoint
            stopped = outcome(replicas.stop, but=())
            served = stopped.error is not None or not stopped.value
        _started[:] = [process for process in _started if process.poll() is None]
        clock.sleep(SECONDS_BETWEEN_LOOKS)


def _move(endpoint: str, pool: str) -> None:
    """Have the endpoint switched, by a run that is recorded as any other."""
    _start("switch", endpoint, f"pool={pool}", "--no-qualify")  # nobody serves at this moment


def _help(leading: Deployment, pool: str) -> None:
    """Have the same deployed on another pool, as the overflow of its endpoint; likewise."""
    there = f"pipeline.stages.{leading.stage}.endpoint.rollout.overflow=true"
    _start("deploy", leading.run, f"roles.{Role.SERVE}={pool}", there)


def _start(*words: str) -> None:
    argv = [sys.executable, "-m", "orchestrator", *words]
    _started.append(subprocess.Popen(argv, stdin=subprocess.DEVNULL))  # noqa: S603 - our own command


def _tell(line: str) -> None:
    print(line, flush=True)
