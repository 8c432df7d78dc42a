"""What the figures of a stage and of a run may be. "Not a number" is refused with all the others.

Endless is `None`, never an infinite number.
"""

from __future__ import annotations

from collections.abc import Iterator

from orchestrator.core.errors import Problem, shown
from orchestrator.core.policy import AUTO, Bounds
from orchestrator.core.spec import Stage

MOST = 10**15
MOMENT = 0.001  # seconds; what may take no time at all can't be done


def problems_of_stage(stage: Stage) -> Iterator[Problem]:
    """Yield which figures of `stage` can't be."""
    path = f"pipeline.stages.{stage.name}"
    for field, value, least in _figures(stage):
        yield from _problem(f"{path}.{field}", value, least)
    if stage.needs.least > stage.needs.workers:
        what = f"{stage.needs.least!r} is more than the {stage.needs.workers!r} workers at most"
        yield Problem(f"{path}.needs.min_workers", what, "lower it")


def problems_of_run(bounds: Bounds) -> Iterator[Problem]:
    """Yield which limits of a run can't be."""
    yield from _problem("cost_limit", bounds.cost, 0)
    yield from _problem("time_limit", bounds.time, MOMENT)
    yield from _problem("attempt_limit", bounds.attempts, 1)


def _problem(path: str, value: float | None, least: float) -> Iterator[Problem]:
    if value is None or least <= value <= MOST:
        return
    if value > MOST:
        yield Problem(path, f"{shown(value)} is too large", f"set {MOST:g} or less, or null")
    else:
        yield Problem(path, f"{shown(value)} is too small", f"set {least!r} or more")


def _figures(stage: Stage) -> Iterator[tuple[str, float | None, float]]:
    needs, limits, recovery, watch = stage.needs, stage.limits, stage.recovery, stage.watch
    yield "needs.workers", needs.workers, 1
    yield "needs.devices", needs.devices, 0
    yield "needs.cpus", needs.cpus, 0
    yield "needs.memory_gb", needs.memory_gb, 0
    yield "needs.min_workers", needs.min_workers, 1
    yield "limits.attempts", limits.attempts, 1
    yield "limits.tries", limits.tries, 1
    yield "limits.total", limits.total, 1
    yield "limits.timeout", limits.timeout, MOMENT
    yield "limits.grace", limits.grace, 0
    yield "limits.pending", limits.pending, 0
    yield "limits.queued", limits.queued, 0
    yield "limits.cost", limits.cost, 0
    yield "limits.backoff", limits.backoff, 0
    yield "hours", stage.hours, 0
    yield "recovery.checkpoints", recovery.checkpoints, 1
    yield "recovery.accumulate", recovery.accumulate, 2
    yield "recovery.keep", recovery.keep, 1
    yield "watch.hang", None if watch.hang == AUTO else watch.hang, 1
    yield "watch.window", watch.window, 0
    yield "watch.deviations", watch.deviations, 1
    yield "watch.patience", watch.patience, 1
    if stage.gate:
        yield "gate.least", stage.gate.least, 1
        yield "gate.deadline", stage.gate.deadline, 0
    if stage.endpoint:
        yield "endpoint.replicas", stage.endpoint.replicas, 1
        for pool, scale in stage.endpoint.scale.items():
            yield f"endpoint.scale.{pool}.replicas", scale.replicas, 1
