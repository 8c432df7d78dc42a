"""The service that keeps endpoints as the database says."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

from orchestrator import wiring
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.settings import ReconcilerSettings
from orchestrator.endpoints.outside_watch import OutsideWatch
from orchestrator.endpoints.overflow import Overflow
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.endpoints.revisions import Revisions
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.supervisor import holder

SECONDS_BETWEEN_LOOKS = 0.5


class Moves:
    """The runs that were started to move endpoints, each a command of its own, until they end."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell
        self._started: list[tuple[subprocess.Popen[bytes], str, str]] = []

    def move(self, endpoint: str, pool: str) -> None:
        """Have the endpoint switched, by a run that is recorded as any other."""
        # Nobody serves at this moment: it is no time to qualify.
        self._start(endpoint, "switch", endpoint, f"pool={pool}", "--no-qualify")

    def help(self, leading: Deployment, pool: str) -> None:
        """Have the same deployed on another pool, as the overflow of its endpoint; likewise."""
        override = f"pipeline.stages.{leading.stage}.endpoint.rollout.overflow=true"
        name = leading.endpoint.name
        self._start(name, "deploy", name, f"pool={pool}", override)

    def _start(self, endpoint: str, *words: str) -> None:
        argv = [sys.executable, "-m", "orchestrator", *words]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL)  # noqa: S603 - our own command
        self._started.append((process, endpoint, words[0]))

    def failed(self) -> Iterator[str]:
        """Yield the endpoints whose switch has failed, and forget what has ended."""
        for ended in [started for started in self._started if started[0].poll() is not None]:
            self._started.remove(ended)
            process, endpoint, verb = ended
            if process.returncode:
                self._tell(f"{verb} for {endpoint} ended with exit code {process.returncode}")
                if verb == "switch":
                    yield endpoint


def run(address: str, settings: str, tell: Callable[[str], None]) -> NoReturn:
    """Look every moment at the endpoints of the cluster at `address`; `tell` hears what moves.

    `settings` are those of the gateway, as whoever started both wrote them.
    """
    when = wiring.gateway_settings(settings).reconciler
    home, clock, moves = wiring.home(), wiring.clock(), Moves(tell)
    watch = threading.Thread(
        target=_watch_outside, args=(home, tell, when), name="outside", daemon=True
    )
    watch.start()
    wiring.running(home)  # which lets this process into a cluster of ours
    store = wiring.database(home)
    replicas = wiring.replicas(home, address)
    reconciler = Reconciler(
        (store, replicas, clock),
        tell,
        moves.move,
        holder=holder.name(),
        adopts=not wiring.shares_database(),
        when=when,
    )
    revisions = Revisions(store, replicas, clock)
    traffic = wiring.traffic(home)
    overflow = Overflow(store, traffic, revisions, clock, tell, moves.help, when)
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
        for endpoint in moves.failed():
            reconciler.move_failed(endpoint)
        clock.sleep(SECONDS_BETWEEN_LOOKS)


def _watch_outside(home: Path, tell: Callable[[str], None], when: ReconcilerSettings) -> None:
    """Look after servers outside, which may take long to say nothing: in a thread of its own."""
    clock, best_effort = wiring.clock(), BestEffort()
    watch = OutsideWatch(
        wiring.database(home), wiring.served_models, tell, f"{holder.name()}/outside", when
    )
    while True:
        best_effort.tell("looks at servers outside were not possible", watch.check, but=())
        clock.sleep(when.outside)
