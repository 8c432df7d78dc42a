"""A plan's failures as a table: what would follow each kind, stages of one policy together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.table import Table

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.forecast import forecasts
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.policy import Limits
from orchestrator.core.spec.stages import Stage
from orchestrator.display import tables

SHOWN = 24  # names of stages that a line lists
COLUMNS = ("STAGES", "AFTER", "WHAT FOLLOWS")


def table(plan: Plan) -> Table:
    """Return what would follow the first failure of each stage, by its kind."""
    groups: dict[tuple[tuple[FailureKind, str], ...], list[str]] = {}
    for name, forecast in forecasts(plan):
        groups.setdefault(tuple(forecast.items()), []).append(name)
    rows = (row for forecast, names in groups.items() for row in _rows(names, dict(forecast)))
    return tables.table(COLUMNS, rows)


def _rows(names: list[str], forecast: Mapping[FailureKind, str]) -> Iterator[tuple[str, str, str]]:
    together: dict[str, list[str]] = {}
    for kind, what in forecast.items():
        together.setdefault(what, []).append(str(kind))
    for index, (what, kinds) in enumerate(together.items()):
        yield _listed(names) if index == 0 else "", " ".join(kinds), what


def _listed(names: list[str]) -> str:
    """Return the names of stages, of many the first."""
    more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def limits(plan: Plan) -> Iterator[str]:
    """Yield a line for each set of limits that stages have, and one for those of the run."""
    groups: dict[str, list[str]] = {}
    for planned in plan.stages:
        groups.setdefault(_limits(planned.stage.limits), []).append(planned.stage.name)
    for line, names in groups.items():
        yield f"Limits of {_listed(names)}: {line}"
    run = plan.bounds
    bounds = {"cost": run.cost, "time": run.time, "attempts": run.attempts}
    set_ones = [f"{name} {value:g}" for name, value in bounds.items() if value is not None]
    if set_ones:
        yield f"Limits of the run: {', '.join(set_ones)}"


def gates(plan: Plan) -> Iterator[str]:
    """Yield a line for each stage that waits at a gate."""
    for stage in (planned.stage for planned in plan.stages):
        if stage.gate:
            yield _gate(stage)


def _gate(stage: Stage) -> str:
    gate = stage.gate
    assert gate is not None, "asked for a stage with a gate"  # noqa: S101
    late = "" if gate.deadline is None else f"; after {gate.deadline:g} s: {gate.then}"
    return f"Stage {stage.name} waits for {gate.kind} {gate.target}".rstrip() + late


def _limits(limits: Limits) -> str:
    parts = [f"{limits.attempts} attempts", f"{limits.tries} in a row on one pool"]
    parts += [f"{limits.timeout:g} s"] if limits.timeout is not None else []
    parts += [f"${limits.cost:g}"] if limits.cost is not None else []
    return ", ".join(parts)
