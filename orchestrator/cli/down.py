"""`orchestrator down`: stop all that runs on this machine.

Runs in progress are named, and end only where the user says so; they can be resumed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.core.errors import HeldError
from orchestrator.service.home_services import Stopped, Use, down


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Stop the cluster, with its endpoints, and the tracking server; state stays."""
    return [Step.of(down(lambda use: args.yes or _may(use), _wait), _tell)]


def _tell(done: Stopped | None) -> Exit:
    if done is None:
        print("Nothing was stopped.")
        return Exit.CANCELLED
    print(f"Stopped: {', '.join(done.stopped)}." if done.stopped else "Nothing was running.")
    for name in done.runs:
        print(f"To go on with a run that was in progress: orchestrator resume {name}")
    return Exit.SUCCEEDED


def _wait(controllers: int) -> None:
    print(f"Waiting for {controllers} controllers to leave ...", flush=True)


def _may(use: Use) -> bool:
    """Ask whether runs and endpoints may be stopped.

    Raises:
        HeldError: Runs are in progress, and there is no terminal to ask. Endpoints alone are
            stopped then: this is the command that takes them away.
    """
    if not use.runs and not (use.endpoints and sys.stdin.isatty()):
        return True
    what = [f"in progress: {', '.join(use.runs)}"] if use.runs else []
    what += [f"served: {', '.join(use.endpoints)}"] if use.endpoints else []
    named = "; ".join(what)
    if not sys.stdin.isatty():
        raise HeldError(f"{named}; `orchestrator down --yes` ends them (runs can be resumed)")
    answer = input(f"{named[0].upper()}{named[1:]}.\nStop them? Runs can be resumed. [y/N] ")
    return answer.strip().lower() in {"y", "yes"}
