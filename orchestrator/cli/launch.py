"""`orchestrator launch`: run a pipeline here, as a Ray job, or once for each of a sweep."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from functools import partial

from orchestrator.cli import composing, plan
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.core.runs.run import RunHeader
from orchestrator.display import tables
from orchestrator.service import environment
from orchestrator.service.launching import PlannedLaunch, launch


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Launch what the command line names; everything is planned before anything starts."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    planned = launch(
        composing.source(args),
        sweep=args.multirun,
        unqualified=args.unqualified,
        continues=args.continues or "",
        reuse=not args.no_cache,
    )
    what = planned.what(detached=args.detach)
    warn(planned.notes)
    if not args.dry_run:
        environment.home()  # where that can't be, nothing is said either
    else:
        for planned_run in planned.runs:
            plan.show(planned_run.vetted.plan, tables.console().print)
    return [Step(what, partial(_detach if args.detach else _here, planned))]


def warn(lines: Iterable[str]) -> None:
    """Print what there is to know before."""
    for line in lines:
        tables.console().print(line, style="yellow", markup=False)


def _here(planned: PlannedLaunch) -> Exit:
    """Run one after the other, until one is cancelled."""
    first = planned.runs[0]
    plan.show(first.vetted.plan, tables.console().print)
    with LiveView.of(first.settings) as view:
        finals = planned.drive(view)
    left = len(planned.runs) - len(finals)
    if left:
        print(f"{left} more of the sweep were not started.", file=sys.stderr)
        return Exit.CANCELLED
    return max(of_state(final.state) for final in finals)


def _detach(planned: PlannedLaunch) -> Exit:
    """Hand each run to a Ray job, and leave the services up."""
    for header in planned.detach():
        plan.show(header.plan, tables.console().print)
        tell_detached(header)
    return Exit.SUCCEEDED


def tell_detached(header: RunHeader) -> None:
    """Print that a run goes on without this command, and what to type next."""
    name, out = header.run, tables.console()
    out.print(f"\nRun [bold]{name}[/] goes on by itself.")
    commands = [
        ("To see how it goes:", f"orchestrator status {name}"),
        ("To follow its logs:", f"orchestrator logs -f {name}"),
        ("To end it:", f"orchestrator cancel {name}"),
    ]
    out.print(tables.useful_commands(commands))
