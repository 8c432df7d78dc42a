"""What would follow each kind of failure of a stage: the plan's answer, by the code that decides.

A made-up first attempt fails, and what decides about real ones is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.core.failure import Failure, FailureKind
from orchestrator.core.fold import begin
from orchestrator.core.plan import Plan
from orchestrator.core.recovery import follow_up
from orchestrator.core.run import Attempt, RunHeader
from orchestrator.core.state import AttemptState, StageFailed, StageState

NODE = "the one that failed"
# Somebody's wish, or a limit: no failure that a stage could go on after.
_NO_FAILURES = frozenset({FailureKind.CANCELLED, FailureKind.TIME, FailureKind.BUDGET})


def forecast(plan: Plan, name: str) -> Mapping[FailureKind, str]:
    """Return, for each kind of failure of the first attempt of stage `name`, what would follow."""
    return {kind: _after(plan, name, kind) for kind in FailureKind if kind not in _NO_FAILURES}


def _after(plan: Plan, name: str, kind: FailureKind) -> str:
    run = begin(RunHeader(run="forecast", plan=plan))
    stage = run.stages[name]
    failed = Attempt(
        stage=name,
        number=1,
        pool=stage.pool,
        state=AttemptState.FAILED,
        started=0.0,
        failure=Failure(kind=kind, evidence="", pool=stage.pool, node=NODE),
    )
    deciding = replace(stage, state=StageState.DECIDING, attempts=(failed,))
    run = replace(run, stages={**run.stages, name: deciding})
    event = follow_up(run, deciding, 0.0, spent=None)
    told = event.reason.removeprefix(f"{kind}: ").strip()
    return f"gives up {told}".strip() if isinstance(event, StageFailed) else told
