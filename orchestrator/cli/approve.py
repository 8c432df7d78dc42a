"""`orchestrator approve RUN STAGE`: open the gate of a stage that waits for somebody's word."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.service import runs


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Approve a stage, before or after it has come to its gate."""
    waiting = runs.find(args.run)
    name = waiting.header.run
    change = runs.approve(waiting, args.stage)
    if waiting.done:
        print(f"Run {name} has already ended: {waiting.state}.")
        return Exit.SUCCEEDED
    return [Step.of(change, lambda _: print(f"Stage {args.stage} of run {name} is approved."))]
