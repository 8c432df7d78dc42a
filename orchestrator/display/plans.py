"""A plan as a table: each stage with its pools, a tick on what was chosen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from rich.table import Table

from orchestrator.core import prices
from orchestrator.core.runs.forecast import forecasts
from orchestrator.core.spec import formats
from orchestrator.core.spec.capacity import places
from orchestrator.core.spec.command_stages import is_command
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Needs, Stage
from orchestrator.display import tables

COLUMNS = ("STAGE", "ROLE", "POOL", "ACCELERATOR", "DEVICES", "FORMAT", "$/H", "COST", "CHOSEN")


def table(plan: Plan) -> Table:
    """Return the stages of a plan with their pools."""
    rows = (row for planned in plan.stages for row in _rows(plan, planned))
    return tables.table(COLUMNS, rows)


def _rows(plan: Plan, planned: PlannedStage) -> Iterator[tuple[str, ...]]:
    stage = planned.stage
    for index, name in enumerate(planned.pools):
        pool = plan.pools[name]
        price = pool.price
        devices = stage.on_pool(name).devices
        hours = None if stage.hours is None else devices * stage.hours
        spent = 0.0 if devices == 0 else prices.money(hours, price)
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
        pool = plan.pools[name]
        chip, hourly = _chip(pool), tables.dollars(pool.price)
        yield "", "", name, chip, _devices(stage, pool), "-", hourly, "-", "overflow"


def differences(planned: PlannedStage) -> Iterator[str]:
    """Yield what differs of a stage on each of its pools, a line each."""
    stage = planned.stage
    prefix = "" if is_command(stage) else "params."
    for name in planned.pools:
        if name in stage.on:
            placed, given = stage.on_pool(name), stage.on[name].params
            values = [
                *_changed("needs", stage.needs, placed.needs),
                *(f"{prefix}{key}={value}" for key, value in given.items()),
                *_changed("watch", stage.watch, placed.watch),
            ]
            yield f"{stage.name} on {name}: {', '.join(values) or 'as elsewhere'}"


def _changed(section: str, before: Needs | Watch, after: Needs | Watch) -> Iterator[str]:
    was = asdict(before)
    for key, value in asdict(after).items():
        if value != was[key]:
            yield f"{section}.{key}={'null' if value is None else value}"


def _devices(stage: Stage, pool: Pool) -> str:
    """Return how many chips a stage has there: of an elastic gang the fewest and the most.

    Of replicas that take several nodes each, how many of those too.
    """
    placed = stage.on_pool(pool.name)
    if placed.fewest == placed.processes:
        nodes = _nodes(placed, pool)
        on = f" on {placed.processes * nodes} nodes" if nodes > 1 else ""
        return f"{placed.devices}{on}"
    least, most = placed.fewest, max(placed.fewest, min(placed.processes, places(placed, pool)))
    each = placed.needs.devices
    return f"{least * each}..{most * each}" if most > least else str(least * each)


def _nodes(stage: Stage, pool: Pool) -> int:
    """Return how many nodes a process of a stage takes: several only of a replica."""
    return pool.nodes_of(stage.needs.devices) if stage.endpoint else 1


def _written(planned: PlannedStage) -> str:
    """Return the format of the model that a stage writes, where it does."""
    form = planned.stage.params.get(formats.PARAMETER)
    return form if isinstance(form, str) and form in formats.FORMATS else "-"


def _chip(pool: Pool) -> str:
    """Return the chip, and what stands in for it."""
    if not pool.emulated:
        return pool.accelerator.name
    bare = pool.emulation == Emulation()
    return pool.accelerator.name + (
        " (emulated)" if bare else f" (emulated: {pool.emulation_mode})"
    )


def as_json(plan: Plan) -> dict[str, object]:
    """Return the plan as plain values."""
    followed = dict(forecasts(plan))
    stages = [
        {
            "stage": planned.stage.name,
            "role": planned.stage.role,
            "job": planned.stage.job,
            "pool": planned.pools[0],
            "fallbacks": list(planned.pools[1:]),
            "overflow": list(planned.overflow),
            "accelerator": plan.pools[planned.pools[0]].accelerator.name,
            "emulated": plan.pools[planned.pools[0]].emulated,
            "emulation": plan.pools[planned.pools[0]].emulation_mode,
            "devices": planned.devices,
            "devices_by_pool": {n: planned.stage.on_pool(n).devices for n in planned.pools},
            "differs": list(differences(planned)),
            "nodes_each": _nodes(planned.stage, plan.pools[planned.pools[0]]),
            "format": planned.formats[0] if planned.formats else None,
            "left_out": list(planned.left_out),
            "device_hours": planned.device_hours,
            "cost": planned.cost,
            "on_failure": followed[planned.stage.name],
        }
        for planned in plan.stages
    ]
    return {
        "pipeline": plan.pipeline,
        "fleet": plan.fleet,
        "emulated": plan.emulated,
        "cost": plan.cost,
        "stages": stages,
    }
