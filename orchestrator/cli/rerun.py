"""`orchestrator rerun RUN STAGE`: run a stage again from its beginning, then those after it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator import session, wiring
from orchestrator.cli import resume, runs
from orchestrator.cli.steps import Step
from orchestrator.core.errors import ConfigError, Problem


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Have a run that has ended go on from one of its stages, without what that had saved."""
    store = wiring.event_store(wiring.home())
    one = runs.load(store, store.header(args.run))
    if not one.done:
        name = one.header.run
        hint = f"wait for its end, or: orchestrator resume {name}"
        raise ConfigError([Problem("", f"run {name!r} has not ended: {one.state}", hint)])
    how = session.Again(since=args.stage, anew=True)
    return resume.steps_of(args, one, session.reopening(store, one, how))
