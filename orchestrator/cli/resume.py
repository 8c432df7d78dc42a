"""`orchestrator resume RUN`: go on with a run that did not succeed, or was lost."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence

from orchestrator.cli import launch
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.core.runs.run import Run
from orchestrator.display import tables
from orchestrator.service import runs
from orchestrator.service.reopening import Again, Resumption, resume


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Have the run go on; finished stages stay, others go on from their checkpoints."""
    earlier = runs.find(args.run)
    how = Again(since=args.since, attempts=args.attempts, limits=tuple(args.overrides))
    resumption = resume(earlier, how, take_over=args.take_over, reuse=not args.no_cache)
    return _ended(earlier) if resumption is None else steps_of(resumption, detached=args.detach)


def steps_of(resumption: Resumption, *, detached: bool) -> Sequence[Step]:
    """Return how a run is opened again, where it has ended, and driven on."""
    launch.warn(resumption.request.settings.renamed)

    def go() -> Exit:
        with LiveView.of(resumption.request.settings) as view:
            return of_state(resumption.drive(view).state)

    def hand_over() -> Exit:
        launch.tell_detached(resumption.detach())
        return Exit.SUCCEEDED

    reopened, other_code = list(resumption.reopened()), resumption.other_code
    driven = resumption.driven(detached=detached)
    if detached:
        return [Step("\n".join([*reopened, driven]), hand_over, announced=other_code)]
    steps = [Step(driven, go)]
    if reopened:
        steps.insert(0, Step("\n".join(reopened), resumption.reopen, announced=other_code))
    return steps


def _ended(final: Run) -> Exit:
    name = final.header.run
    print(f"Run {name} has already ended: {final.state}.")
    again = shlex.join(["orchestrator", "launch", *final.header.flags, *final.header.overrides])
    commands = [
        ("To launch it again, which reuses finished stages:", again),
        ("To go on from one of its stages:", f"orchestrator resume {name} --from STAGE"),
        ("To run a stage again from its beginning:", f"orchestrator rerun {name} STAGE"),
        ("To see its stages:", f"orchestrator status {name}"),
    ]
    tables.console().print(tables.useful_commands(commands))
    return of_state(final.state)
