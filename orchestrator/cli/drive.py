"""`orchestrator _drive RUN`: the controller of a detached run, as a Ray job starts it."""

from __future__ import annotations

import argparse

from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.service.launching import drive_detached, settings_of, take_over_environment


def run(args: argparse.Namespace) -> Exit:
    """Drive a run that the database has, on the services that are up."""
    take_over_environment(args.run)
    with LiveView.of(settings_of(args.run)) as view:
        final = drive_detached(
            args.run, view, reuse=not args.no_cache, take_over=args.take_over, by=args.by
        )
    return of_state(final.state)
