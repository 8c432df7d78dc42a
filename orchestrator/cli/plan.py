"""`orchestrator plan`: what a launch would do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator

from orchestrator.cli import composing
from orchestrator.cli.exits import Exit
from orchestrator.core.errors import Problem
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.display import plans, policies, tables
from orchestrator.service.planning import plan


def run(args: argparse.Namespace) -> Exit:
    """Print the plan, or refuse it with all problems."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    planned = plan(composing.source(args), unqualified=args.unqualified)
    pipeline_plan, vetted = planned.plan, planned.vetted
    if args.json:
        fields = {
            **plans.as_json(pipeline_plan),
            "refused": [str(problem) for problem in vetted.problems],
        }
        print(tables.as_json({**fields, "notes": planned.notes}))
        return Exit.SUCCEEDED
    out = tables.console()
    show(pipeline_plan, out.print)
    remark(vetted.problems, planned.notes, out.print)
    out.print("\n[bold]What follows a failure[/]\n")
    out.print(policies.table(pipeline_plan))
    for line in (*policies.gates(pipeline_plan), *policies.limits(pipeline_plan)):
        out.print(line, markup=False)
    again = composing.again(args)
    commands = [("To run it:", f"orchestrator launch {again}"), _switch(pipeline_plan, again)]
    out.print(tables.useful_commands([line for line in commands if line]))
    return Exit.SUCCEEDED


def show(pipeline_plan: Plan, write: Callable[..., None]) -> None:
    """Write the plan as a table: each stage with its pools, a tick on what was chosen."""
    write(f"Pipeline [bold]{pipeline_plan.pipeline}[/] on fleet [bold]{pipeline_plan.fleet}[/]\n")
    write(plans.table(pipeline_plan))
    for planned in pipeline_plan.stages:
        for line in plans.differences(planned):
            write(f"\n{line}", markup=False)
    for planned in pipeline_plan.stages:
        for line in _left_out(planned):
            write(f"\n[yellow]{line}[/]")
    total = pipeline_plan.cost
    write(f"\nExpected cost: {'unknown' if total is None else '$' + tables.dollars(total)}")
    if pipeline_plan.emulated:
        write("[yellow]Emulated pools stand in for their chips: no figure is the chip's.[/]")


def remark(problems: Iterable[Problem], notes: Iterable[str], write: Callable[..., None]) -> None:
    """Write which pools of a plan have not earned their role, and what else there is to know."""
    for problem in problems:
        write(f"A launch is refused: {problem}", style="red", markup=False)
    for note in notes:
        write(note, style="yellow", markup=False)


def _left_out(planned: PlannedStage) -> Iterator[str]:
    return (f"{planned.stage.name}: {reason}." for reason in planned.reasons)


def _switch(pipeline_plan: Plan, again: str) -> tuple[str, str] | None:
    """Return the command that moves a role to its first fallback, where one has any."""
    for planned in pipeline_plan.stages:
        if len(planned.pools) > 1:
            role, other = planned.stage.role, planned.pools[1]
            command = f"orchestrator launch {again} roles.{role}={other}".replace("  ", " ")
            return (f"To {role} on {other}:", command)
    return None
