"""`orchestrator cancel RUN`: ask whoever controls a run to end it, and wait until it has."""

from __future__ import annotations

import argparse

from orchestrator import wiring
from orchestrator.cli import runs
from orchestrator.cli.exits import Exit

SECONDS_TO_WAIT = 30.0
SECONDS_BETWEEN_LOOKS = 0.2


def run(args: argparse.Namespace) -> Exit:
    """Cancel a run; one that has ended already is told as it ended."""
    store, clock = wiring.event_store(wiring.home()), wiring.clock()
    header = store.header(args.run)
    one = runs.load(store, header)
    if one.done:
        print(f"Run {header.run} has already ended: {one.state}.")
        return Exit.SUCCEEDED
    store.request_cancel(header.run)
    until = clock.now() + SECONDS_TO_WAIT
    while not one.done and clock.now() < until:
        clock.sleep(SECONDS_BETWEEN_LOOKS)
        one = runs.load(store, header)
    if not one.done:
        print(f"Asked run {header.run} to end; its controller has not answered yet.")
        return Exit.NOT_FINISHED
    print(f"Run {header.run} {one.state}.")
    return Exit.SUCCEEDED
