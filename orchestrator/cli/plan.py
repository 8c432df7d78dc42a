"""`orchestrator plan`: what a launch would do."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator

from rich.table import Table

from orchestrator.cli import composing, policies, tables
from orchestrator.cli.exits import Exit
from orchestrator.core import cost
from orchestrator.core.runs.forecast import forecasts
from orchestrator.core.spec import formats
from orchestrator.core.spec.capacity import places
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.stages import Stage
from orchestrator.core.trust.qualification import Vetted
from orchestrator.service.planning import plan

COLUMNS = ("STAGE", "ROLE", "POOL", "ACCELERATOR", "DEVICES", "FORMAT", "$/H", "COST", "CHOSEN")


def run(args: argparse.Namespace) -> Exit:
    """Print the plan, or refuse it with all problems."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    planned = plan(composing.source(args), unqualified=args.unqualified)
    made, vetted = planned.plan, planned.vetted
    if args.json:
        told = {**as_json(made), "refused": [str(problem) for problem in vetted.problems]}
        print(tables.as_json({**told, "notes": [*vetted.dropped, *vetted.notes]}))
        return Exit.SUCCEEDED
    out = tables.console()
    show(made, out.print)
    remark(vetted, out.print)
    out.print("\n[bold]What follows a failure[/]\n")
    out.print(policies.table(made))
    for line in (*policies.gates(made), *policies.limits(made)):
        out.print(line, markup=False)
    again = composing.again(args)
    commands = [("To run it:", f"orchestrator launch {again}"), _switch(made, again)]
    out.print(tables.useful_commands([line for line in commands if line]))
    return Exit.SUCCEEDED


def show(made: Plan, write: Callable[..., None]) -> None:
    """Write the plan as a table: each stage with its pools, a tick on what was chosen."""
    write(f"Pipeline [bold]{made.pipeline}[/] on fleet [bold]{made.fleet}[/]\n")
    write(_table(made))
    for planned in made.stages:
        for line in _left_out(planned):
            write(f"\n[yellow]{line}[/]")
    total = made.cost
    write(f"\nExpected cost: {'unknown' if total is None else '$' + tables.dollars(total)}")
    if made.emulated:
        write("[yellow]Emulated pools stand in for their chips: no figure is the chip's.[/]")


def remark(vetted: Vetted, write: Callable[..., None]) -> None:
    """Write which pools of a plan have not earned their role."""
    for problem in vetted.problems:
        write(f"A launch is refused: {problem}", style="red", markup=False)
    for note in (*vetted.dropped, *vetted.notes):
        write(note, style="yellow", markup=False)


def _table(made: Plan) -> Table:
    rows = (row for planned in made.stages for row in _rows(made, planned))
    return tables.table(COLUMNS, rows)


def _rows(made: Plan, planned: PlannedStage) -> Iterator[tuple[str, ...]]:
    stage = planned.stage
    for index, name in enumerate(planned.pools):
        pool = made.pools[name]
        price = pool.price
        spent = 0.0 if stage.on(name).devices == 0 else cost.money(planned.device_hours, price)
        yield (
            stage.name if index == 0 else "",
            stage.role if index == 0 else "",
            name,
            _chip(pool),
            _devices(stage, pool),
            planned.formats[index] if planned.formats else _written(planned),
            tables.dollars(price),
            tables.dollars(spent),
            "✔" if index == 0 else "fallback",
        )
    for name in planned.overflow:
        pool = made.pools[name]
        chip, hourly = _chip(pool), tables.dollars(pool.price)
        yield "", "", name, chip, _devices(stage, pool), "-", hourly, "-", "overflow"


def _devices(stage: Stage, pool: Pool) -> str:
    """Return how many chips a stage has there: of an elastic gang the fewest and the most.

    Of replicas that take several nodes each, how many of those too.
    """
    there = stage.on(pool.name)
    if there.fewest == there.processes:
        nodes = _nodes(there, pool)
        on = f" on {there.processes * nodes} nodes" if nodes > 1 else ""
        return f"{there.devices}{on}"
    least, most = there.fewest, max(there.fewest, min(there.processes, places(there, pool)))
    each = there.needs.devices
    return f"{least * each}..{most * each}" if most > least else str(least * each)


def _nodes(stage: Stage, pool: Pool) -> int:
    """Return how many nodes a process of a stage takes: several only of a replica."""
    return pool.nodes_of(stage.needs.devices) if stage.endpoint else 1


def _written(planned: PlannedStage) -> str:
    """Return the format of the model that a stage writes, where it does."""
    form = planned.stage.params.get(formats.PARAMETER)
    return form if isinstance(form, str) and form in formats.FORMATS else "-"


def _left_out(planned: PlannedStage) -> Iterator[str]:
    return (f"{planned.stage.name}: {reason}." for reason in planned.reasons)


def _chip(pool: Pool) -> str:
    """Return the chip, and what stands in for it."""
    if not pool.emulated:
        return pool.accelerator.name
    bare = pool.emulation == Emulation()
    return pool.accelerator.name + (
        " (emulated)" if bare else f" (emulated: {pool.emulation_mode})"
    )


def as_json(made: Plan) -> dict[str, object]:
    """Return the plan as plain values."""
    followed = dict(forecasts(made))
    stages = [
        {
            "stage": planned.stage.name,
            "role": planned.stage.role,
            "job": planned.stage.job,
            "pool": planned.pools[0],
            "fallbacks": list(planned.pools[1:]),
            "overflow": list(planned.overflow),
            "accelerator": made.pools[planned.pools[0]].accelerator.name,
            "emulated": made.pools[planned.pools[0]].emulated,
            "emulation": made.pools[planned.pools[0]].emulation_mode,
            "devices": planned.devices,
            "nodes_each": _nodes(planned.stage, made.pools[planned.pools[0]]),
            "format": planned.formats[0] if planned.formats else None,
            "left_out": list(planned.left_out),
            "device_hours": planned.device_hours,
            "cost": planned.cost,
            "on_failure": followed[planned.stage.name],
        }
        for planned in made.stages
    ]
    return {
        "pipeline": made.pipeline,
        "fleet": made.fleet,
        "emulated": made.emulated,
        "cost": made.cost,
        "stages": stages,
    }


def _switch(made: Plan, again: str) -> tuple[str, str] | None:
    """Return the command that moves a role to its first fallback, where one has any."""
    for planned in made.stages:
        if len(planned.pools) > 1:
            role, other = planned.stage.role, planned.pools[1]
            command = f"orchestrator launch {again} roles.{role}={other}".replace("  ", " ")
            return (f"To {role} on {other}:", command)
    return None
