"""`orchestrator _keep ADDRESS`: the service that keeps endpoints as the store says."""

from __future__ import annotations

import argparse
import subprocess
import sys

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.control.keeper import Keeper
from orchestrator.core.errors import OrchestratorError

SECONDS_BETWEEN_LOOKS = 0.5


def run(args: argparse.Namespace) -> Exit:
    """Look every moment, until the service is stopped."""
    at, clock = wiring.home(), wiring.clock()
    wiring.running(at)  # which lets this process into a cluster of ours
    store = wiring.endpoint_store(at)
    replicas = wiring.replicas(args.address)
    keeper = Keeper(store, replicas, clock, _tell, _move)
    served = False
    while True:
        try:
            if keeper.look():
                served = True
            elif served:
                served = not replicas.stop()  # Serve itself goes with the last endpoint
        except OrchestratorError as error:
            print(f"error: {error}", file=sys.stderr, flush=True)
        clock.sleep(SECONDS_BETWEEN_LOOKS)


def _move(endpoint: str, pool: str) -> None:
    """Have the endpoint switched, by a run that is recorded as any other."""
    words = [sys.executable, "-m", "orchestrator", "switch", endpoint, f"pool={pool}"]
    subprocess.Popen(words, stdin=subprocess.DEVNULL)  # noqa: S603 - our own command


def _tell(line: str) -> None:
    print(line, flush=True)
