"""`orchestrator cancel RUN`: ask whoever controls a run to end it, and wait until it has.

Where nobody controls it any more, this command takes it over and ends it itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Protocol

from orchestrator import session, wiring
from orchestrator.adapters import hydra_config
from orchestrator.cli import runs, tables
from orchestrator.cli.exits import Exit
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.controller.lease import LeasedRuns, LeaseState
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.ports import Interventions

SECONDS_TO_WAIT = 30.0
SECONDS_BETWEEN_LOOKS = 0.2
REASON = "cancelled by request"


class CancellableRuns(LeasedRuns, Interventions, Protocol):
    """The events of runs, who has each, and whether it is to be cancelled."""


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Cancel a run; one that has ended already is told as it ended."""
    store = wiring.event_store(wiring.home())
    header = store.header(args.run)
    one = runs.load(store, header)
    if one.done:
        print(f"Run {header.run} has already ended: {one.state}.")
        return Exit.SUCCEEDED
    alive = runs.lease_state(store, one) is LeaseState.ALIVE
    who = "its controller" if alive else "this command, since it has no controller that lives"
    return [Step(f"have run {header.run} ended by {who}", partial(_cancel, store, header))]


def _cancel(store: CancellableRuns, header: RunHeader) -> Exit:
    store.request_cancel(header.run)
    one = _wait(store, header)
    if not one.done and runs.lease_state(store, one) is not LeaseState.ALIVE:
        one = _end(header)
    if not one.done:
        print(f"Asked run {header.run} to end; its controller has not answered yet.")
        print(f"To end it all the same: orchestrator resume --take-over {header.run}")
        return Exit.NOT_FINISHED
    print(f"Run {header.run} {one.state}.")
    return Exit.SUCCEEDED


def _wait(store: LeasedRuns, header: RunHeader) -> Run:
    """Wait until the run has ended, or its controller is gone; return it."""
    clock = wiring.clock()
    until = clock.monotonic() + SECONDS_TO_WAIT
    one = runs.load(store, header)
    while clock.monotonic() < until:
        if one.done or runs.lease_state(store, one) is LeaseState.GONE:
            break
        clock.sleep(SECONDS_BETWEEN_LOOKS)
        one = runs.load(store, header)
    return one


def _end(header: RunHeader) -> Run:
    """Take the run over from nobody, and end it."""
    print(f"The controller of run {header.run} is gone; ending the run without it.")
    found, at = hydra_config.parse(header.config), wiring.home()
    order = session.Order(found=found, header=header, at=at)
    with session.tracking_alone(found, at) as addresses:
        return session.wind_down(order, addresses, LiveView(tables.console()), REASON)
