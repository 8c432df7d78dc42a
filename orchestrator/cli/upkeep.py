"""The arguments of verbs that keep house: `gc` and `db`."""

from __future__ import annotations

import argparse

from orchestrator.cli import arguments, flags

# `service.collecting.Kind`, which is not imported for help.
KINDS = ("checkpoints", "points", "artifacts", "runs", "code", "caches")


def add(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add them."""
    gc = verbs.add_parser("gc", help="remove what runs that are over have left, and nobody uses")
    runs = arguments.whole("runs", arguments.ROWS, 0)
    gc.add_argument(
        "--keep-runs", type=runs, default=20, metavar="N", help="the newest; 20 by default"
    )
    days = arguments.number("days", arguments.DAYS)
    gc.add_argument(
        "--older", type=days, default=30.0, metavar="DAYS", help="than that; 30 by default"
    )
    gc.add_argument("--only", action="append", choices=KINDS, help="of all kinds; may be repeated")
    gc.add_argument(
        "--resumable", action="store_true", help="what could be resumed may be removed too"
    )
    gc.add_argument(
        "--mlflow", action="store_true", help="what MLflow shows of runs that go is deleted, too"
    )
    flags.dry(gc)
    db = verbs.add_parser("db", help="copy all that is known to another database")
    db.add_argument("action", choices=("copy",))
    db.add_argument("source", metavar="FROM", help="a file of SQLite, or an address")
    db.add_argument("target", metavar="TO", help="postgresql://USER@HOST/NAME, empty")
    flags.dry(db)
