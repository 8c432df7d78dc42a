"""`orchestrator logs`: what the stages of a run wrote."""

from __future__ import annotations

import argparse
import sys

from orchestrator.cli.exits import Exit, of_state
from orchestrator.core.text import visible
from orchestrator.service.logs import Logs, logs


def run(args: argparse.Namespace) -> Exit:
    """Print the logs; with `--follow` go on until the run ends, and tell how.

    Raises:
        NotFoundError: There is no such stage, or the logs are on another machine.
    """
    written = logs(args.run, args.stage)
    if not written.here and (written.began or not args.follow):
        return _nothing(written)
    for line in written.lines(follow=args.follow):
        print(line, flush=True)
    elsewhere = written.elsewhere()
    if elsewhere:
        print(f"What it writes now is {elsewhere}.", file=sys.stderr)
    return of_state(written.run.state) if args.follow else Exit.SUCCEEDED


def _nothing(logs: Logs) -> Exit:
    """Say why a run has no logs here: nothing of it has run, or it ran on another machine."""
    if logs.began:
        raise logs.not_here()
    why = f": {visible(logs.run.reason)}" if logs.run.reason else ""
    print(f"Run {logs.run.header.run} has no logs: nothing of it has run{why}.")
    return Exit.SUCCEEDED
