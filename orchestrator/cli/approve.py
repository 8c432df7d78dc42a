"""`orchestrator approve RUN STAGE`: open the gate of a stage that waits for somebody's word."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from orchestrator import wiring
from orchestrator.cli import runs
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.core.errors import NotFoundError
from orchestrator.core.nearest import choices
from orchestrator.core.spec.policy import Gate


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Approve a stage, before or after it has come to its gate."""
    store = wiring.event_store(wiring.home())
    one = runs.load(store, store.header(args.run))
    name = one.header.run
    waiting = [s.name for s in one.stages.values() if _waits(s.planned.stage.gate)]
    if args.stage not in waiting:
        hint = choices(args.stage, waiting, "stages that do") if waiting else "no stage of it does"
        raise NotFoundError(f"stage {args.stage!r} of run {name!r} waits for no approval; {hint}")
    if one.done:
        print(f"Run {name} has already ended: {one.state}.")
        return Exit.SUCCEEDED
    return [Step(f"approve stage {args.stage} of run {name}", partial(_approve, name, args.stage))]


def _approve(run: str, stage: str) -> None:
    wiring.event_store(wiring.home()).approve(run, stage, wiring.user())
    print(f"Stage {stage} of run {run} is approved.")


def _waits(gate: Gate | None) -> bool:
    return gate is not None and gate.kind == "approval"
