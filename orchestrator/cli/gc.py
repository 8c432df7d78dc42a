"""`orchestrator gc`: remove what nobody needs any more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.steps import Step
from orchestrator.core.runs.retention import Retention
from orchestrator.service.collecting import MB, Collected, Kind, collect


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Remove things of runs that are over, and of this machine's cache."""
    rules = Retention(newest=args.keep_runs, days=args.older, resumable=args.resumable)
    kinds = [Kind(name) for name in args.only or list(Kind)]
    return [Step.of(collect(rules, kinds, start=not args.dry_run), _tell)]


def _tell(done: Collected) -> None:
    print(f"{done.size / MB:,.1f} MB and {done.rows:,} rows are removed, of {done.runs} runs.")
