"""When a stage must stop: out of time, out of money, or waiting too long for a place."""

from __future__ import annotations

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.run import Attempt, Run, StageRun, known_cost


def over_budget(run: Run, now: float) -> bool:
    """Return whether the run has cost more than its limit, as far as prices are known."""
    limit = run.plan.bounds.cost
    return limit is not None and run.known_cost(now) > limit


def exhausted(run: Run, stage: StageRun, now: float, *, broke: bool) -> Failure | None:
    """Return why `stage` must stop, or `None`.

    `broke` says that the run is over its budget; it is the same for all stages, so the caller
    works it out once.
    """
    limits, pool = stage.planned.stage.limits, stage.pool
    if limits.timeout is not None and stage.seconds(now) > limits.timeout:
        evidence = f"stage {stage.name!r} ran over its time limit of {limits.timeout!r} s"
        return Failure(kind=FailureKind.TIME, evidence=evidence, pool=pool)
    if limits.cost is not None and known_cost(run, stage.name, now) > limits.cost:
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
    limits = stage.planned.stage.limits
    limit = limits.queued if attempt.queued else limits.pending
    since = attempt.started if attempt.waits_since is None else attempt.waits_since
    if limit is None or now - since <= limit:
        return None
    why = f": {attempt.waits}" if attempt.waits else ""
    evidence = f"no place on pool {attempt.pool!r} within {limit:g} s{why}"
    return Failure(kind=FailureKind.PLACEMENT, evidence=evidence, pool=attempt.pool)


def out_of_grace(stage: StageRun, attempt: Attempt, now: float) -> bool:
    """Return whether an attempt that is over a limit must end without a further checkpoint.

    It is asked to leave at its next checkpoint, and has the stage's `grace` for that; less where
    it has shown none yet, for it may be of a job that saves none. An endpoint saves none.
    """
    if attempt.placed is None or stage.planned.stage.endpoint:
        return True
    limits = stage.planned.stage.limits
    grace = limits.grace
    if not attempt.saved and attempt.resumed is None:
        grace = min(grace, limits.grace_unsaved)
    since = now if attempt.leaving_since is None else attempt.leaving_since
    return now - since > grace or grace == 0


def held_too_long(stage: StageRun, now: float) -> str:
    """Return why a stage that is held must wait no longer, or nothing."""
    limit, since = stage.planned.stage.limits.queued, stage.held_since
    if limit is None or since is None or now - since <= limit:
        return ""
    return f"no place on pool {stage.pool!r} within {limit:g} s: {stage.hold_reason}"


def _late(run: Run, now: float) -> bool:
    limit = run.plan.bounds.time
    return limit is not None and run.seconds(now) > limit
