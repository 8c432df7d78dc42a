"""`orchestrator _reap`: the service that looks after runs whose controller is gone.

It ends when for a while no run is left to look after and nobody uses the services of this home.
"""

from __future__ import annotations

import argparse
import sys

from orchestrator import wiring
from orchestrator.cli.exits import Exit
from orchestrator.control.reaper import Reaper
from orchestrator.core.errors import OrchestratorError
from orchestrator.core.run import Run
from orchestrator.supervisor import holder, tenancy

SECONDS_BETWEEN_LOOKS = 5.0
IDLE_LOOKS = 12  # a detached run needs a moment until its controller is up


def run(args: argparse.Namespace) -> Exit:  # noqa: ARG001 - every verb has this form
    """Look every few seconds."""
    at, clock = wiring.home(), wiring.clock()
    store = wiring.event_store(at)

    def bury(one: Run, reason: str) -> bool:
        print(f"{one.header.run}: {reason}", flush=True)
        return wiring.bury(at, store, one, reason)

    reaper = Reaper(store, clock, holder.lives, bury)
    idle = 0
    while idle < IDLE_LOOKS:
        busy = _look(reaper) or tenancy.used(at)
        idle = 0 if busy else idle + 1
        clock.sleep(SECONDS_BETWEEN_LOOKS)
    return Exit.SUCCEEDED


def _look(reaper: Reaper) -> bool:
    """Return whether there is something left to do; a database that is away comes back."""
    try:
        return reaper.look()
    except OrchestratorError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return True
