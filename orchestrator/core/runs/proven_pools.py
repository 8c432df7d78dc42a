"""Where an endpoint may serve: on the pools on which its model was compared, and passed."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.runs.states import StageFailed, StageMoved
from orchestrator.core.spec.parity import guards


def proven(run: Run, stage: StageRun) -> StageRun:
    """Return `stage` with the pools alone on which all that guards its endpoint has passed.

    The pool that it is bound to at present stays among them.
    """
    stages = (stage_run.planned.stage for stage_run in run.stages.values())
    passed = [run.stages[guard.name].pool for guard in guards(stages, stage.planned.stage)]
    pools = stage.planned.pools
    left = tuple(pool for pool in pools if pool == stage.pool or all(pool == p for p in passed))
    return replace(stage, planned=replace(stage.planned, pools=left)) if left != pools else stage


def misplaced(run: Run, stage: StageRun) -> StageMoved | StageFailed | None:
    """Return what follows where an endpoint's guards passed on another pool than its own."""
    stages = (stage_run.planned.stage for stage_run in run.stages.values())
    passed = {run.stages[guard.name].pool for guard in guards(stages, stage.planned.stage)}
    if not passed - {stage.pool}:
        return None
    where = ", ".join(sorted(passed))
    if len(passed) == 1 and where in stage.planned.pools:
        return StageMoved(stage.name, where, f"its model was compared on {where}: goes there")
    reason = f"{FailureKind.PARITY}: its model was compared on {where}, which can't serve it"
    return StageFailed(stage.name, reason)
