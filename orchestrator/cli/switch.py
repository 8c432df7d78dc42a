"""`orchestrator switch ENDPOINT pool=POOL`, or `switch RUN KEY=VALUE...`: other hardware, live."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli import plan, qualify
from orchestrator.cli.exits import Exit, of_state
from orchestrator.cli.live import LiveView
from orchestrator.cli.steps import Step
from orchestrator.display import tables
from orchestrator.service import switching


def run(args: argparse.Namespace) -> Sequence[Step]:
    """Move what NAME serves to other hardware."""
    options = {"unqualified": args.unqualified, "qualify": not args.no_qualify}
    return steps_of(switching.switch(args.name, args.overrides, **options))


def steps_of(switch: switching.Switch) -> Sequence[Step]:
    """Show the plan of a switch, and return what it does."""
    plan.show(switch.plan, tables.console().print)

    def go() -> Exit:
        with LiveView.of(switch.settings) as view:
            final = switch.run(view, qualify.show)
        return of_state(final.state)

    return [Step(switch.what, go, announced=True)]
