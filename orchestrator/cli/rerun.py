"""`orchestrator rerun RUN STAGE`: run a stage again from its beginning, then those after it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli import resume
from orchestrator.cli.steps import Step
from orchestrator.service import runs
from orchestrator.service.reopening import rerun


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Have a run that has ended go on from one of its stages, without what that had saved."""
    resumption = rerun(runs.find(args.run), args.stage, reuse=not args.no_cache)
    return resume.steps_of(resumption, detached=args.detach)
