"""`orchestrator cancel RUN`: ask whoever controls a run to end it, and wait until it has."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.exits import Exit
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.display import tables
from orchestrator.service import runs
from orchestrator.service.cancelling import Cancelled, cancel


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Cancel a run; one that has ended already is told as it ended."""
    known = runs.find(args.run)
    if known.done:
        print(f"Run {known.header.run} has already ended: {known.state}.")
        return Exit.SUCCEEDED
    return [Step.of(cancel(known, LiveView(tables.console())), _tell)]


def _tell(cancelled: Cancelled) -> Exit:
    run, name = cancelled.run, cancelled.run.header.run
    if cancelled.here:
        print(f"The controller of run {name} is gone; the run was ended without it.")
    if not run.done:
        print(f"Asked run {name} to end; its controller has not answered yet.")
        print(f"To end it all the same: orchestrator resume --take-over {name}")
        return Exit.NOT_FINISHED
    print(f"Run {name} {run.state}.")
    return Exit.SUCCEEDED
