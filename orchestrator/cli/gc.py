"""`orchestrator gc`: remove what nobody needs any more."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.runs.retention import Retention
from orchestrator.service.collecting import MB, Collected, Kind, collect


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Remove things of runs that are over, and of this machine's cache."""
    rules = Retention(newest=args.keep_runs, days=args.older, resumable=args.resumable)
    kinds = [Kind(name) for name in args.only or list(Kind)]
    if args.mlflow and Kind.RUNS not in kinds:
        what = "goes with the runs that are removed, and none are to be"
        raise ConfigError([Problem("--mlflow", what, "add --only runs")])
    change = collect(rules, kinds, start=not args.dry_run, tracked=args.mlflow)
    return [Step.of(change, _tell)]


def _tell(done: Collected) -> None:
    print(f"{done.size / MB:,.1f} MB and {done.rows:,} rows are removed, of {done.runs} runs.")
    if done.shown:
        print(f"{done.shown:,} runs of MLflow are deleted; `mlflow gc` frees their files.")
