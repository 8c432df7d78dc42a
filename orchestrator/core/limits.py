"""When a stage must stop: out of time, out of money, or waiting too long for a place."""

from __future__ import annotations

from orchestrator.core.failure import Failure, FailureKind
from orchestrator.core.run import Attempt, Run, StageRun, stage_cost


def over_budget(run: Run, now: float) -> bool:
    """Return whether the run has cost more than its limit."""
    limit = run.plan.bounds.cost
    return limit is not None and run.spent(now) > limit


def exhausted(run: Run, stage: StageRun, now: float, *, broke: bool) -> Failure | None:
    """Return why `stage` must stop, or `None`.

    `broke` says that the run is over its budget; it is the same for all stages, so the caller
    works it out once.
    """
    limits, pool = stage.planned.stage.limits, stage.pool
    if limits.timeout is not None and _seconds(stage, now) > limits.timeout:
        evidence = f"stage {stage.name!r} ran over its time limit of {limits.timeout!r} s"
        return Failure(kind=FailureKind.TIME, evidence=evidence, pool=pool)
    if limits.cost is not None and stage_cost(run, stage.name, now) > limits.cost:
        evidence = f"stage {stage.name!r} cost more than its limit of ${limits.cost!r}"
        return Failure(kind=FailureKind.BUDGET, evidence=evidence, pool=pool)
    if _late(run, now):
        evidence = f"the run took longer than its limit of {run.plan.bounds.time!r} s"
        return Failure(kind=FailureKind.TIME, evidence=evidence, pool=pool)
    if broke:
        evidence = f"the run cost more than its limit of ${run.plan.bounds.cost!r}"
        return Failure(kind=FailureKind.BUDGET, evidence=evidence, pool=pool)
    return None


def waited_too_long(stage: StageRun, attempt: Attempt, now: float) -> Failure | None:
    """Return why an attempt without a place must stop waiting for one, or `None`."""
    limit = stage.planned.stage.limits.pending
    if limit is None or now - attempt.started <= limit:
        return None
    evidence = f"no free place on pool {attempt.pool!r} within {limit!r} s"
    return Failure(kind=FailureKind.PLACEMENT, evidence=evidence, pool=attempt.pool)


def held_too_long(stage: StageRun, now: float) -> str:
    """Return why a stage that is held must wait no longer, or nothing."""
    limit, since = stage.planned.stage.limits.pending, stage.held_since
    if limit is None or since is None or now - since <= limit:
        return ""
    return f"no place on pool {stage.pool!r} within {limit:g} s: {stage.held}"


def _late(run: Run, now: float) -> bool:
    limit, began = run.plan.bounds.time, run.started
    return limit is not None and began is not None and now - began > limit


def _seconds(stage: StageRun, now: float) -> float:
    return now - stage.attempts[0].started if stage.attempts else 0.0
