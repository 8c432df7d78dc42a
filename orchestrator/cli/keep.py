"""`orchestrator _keep ADDRESS GATEWAY`: the service that keeps endpoints as the store says."""

from __future__ import annotations

import argparse
import subprocess
import sys

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.control.keeper import Keeper
from orchestrator.control.overflow import Overflow
from orchestrator.control.revisions import Revisions
from orchestrator.core.endpoints import Deployment
from orchestrator.core.errors import OrchestratorError
from orchestrator.core.hardware import Role

SECONDS_BETWEEN_LOOKS = 0.5


def run(args: argparse.Namespace) -> Exit:
    """Look every moment, until the service is stopped."""
    at, clock = wiring.home(), wiring.clock()
    wiring.running(at)  # which lets this process into a cluster of ours
    store = wiring.endpoint_store(at)
    replicas = wiring.replicas(args.address)
    keeper = Keeper(store, replicas, clock, _tell, _move)
    revisions = Revisions(store, replicas, clock)
    traffic = wiring.traffic(args.gateway)
    overflow = Overflow(store, traffic, revisions, clock, _tell, _help)
    served = False
    while True:
        try:
            if keeper.look():
                served = True
                overflow.look()
            elif served:
                served = not replicas.stop()  # Serve itself goes with the last endpoint
        except OrchestratorError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
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
    subprocess.Popen(argv, stdin=subprocess.DEVNULL)  # noqa: S603 - our own command


def _tell(line: str) -> None:
    print(line, flush=True)
