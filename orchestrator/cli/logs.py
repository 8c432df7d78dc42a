"""`orchestrator logs`: what the stages of a run wrote."""

from __future__ import annotations

import argparse

from orchestrator.cli.exits import Exit, of_state
from orchestrator.core.text import visible
from orchestrator.service.logs import Wanted, logs


def run(args: argparse.Namespace) -> Exit:
    """Print the logs; with `--follow` go on until the run ends, and tell how.

    Raises:
        NotFoundError: There is no such stage.
    """
    wanted = Wanted(
        stage=args.stage, attempt=args.attempt, rank=args.rank, tail=args.tail, since=args.since
    )
    written = logs(args.run, wanted)
    if not written.began and not args.follow:
        why = f": {visible(written.run.reason)}" if written.run.reason else ""
        print(f"Run {written.run.header.run} has no logs: nothing of it has run{why}.")
        return Exit.SUCCEEDED
    for line in written.lines(follow=args.follow):
        print(line, flush=True)
    return of_state(written.run.state) if args.follow else Exit.SUCCEEDED
