"""What would follow each kind of failure of a stage: the plan's answer, by the code that decides.

A made-up first attempt fails, and what decides about real ones is asked. It is shown a run of the
stage and of those right before it, which is all that it looks at; stages that differ in their
names alone are asked about once. So the work grows with the stages, and not with their square.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from orchestrator.core.failures.kinds import GUESSED, Failure, FailureKind
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.recovery import follow_up
from orchestrator.core.runs.run import Attempt, Run, RunHeader
from orchestrator.core.runs.states import AttemptState, StageFailed, StagePaused, StageState
from orchestrator.core.spec.plan import Plan, PlannedStage

NODE = "the one that failed"
_VERBS = {StageFailed: "gives up", StagePaused: "pauses"}
# Somebody's wish, or a limit: no failure that a stage could go on after.
_NO_FAILURES = frozenset({FailureKind.CANCELLED, FailureKind.TIME, FailureKind.BUDGET})


def forecasts(plan: Plan) -> Iterator[tuple[str, Mapping[FailureKind, str]]]:
    """Yield each stage's name, and what would follow each kind of failure of its first attempt."""
    stages = {planned.stage.name: planned for planned in plan.stages}
    known: dict[str, Mapping[FailureKind, str]] = {}
    for name, planned in stages.items():
        before = [stages[other] for other in planned.stage.upstream if other in stages]
        nameless = _nameless(planned, before)
        if nameless not in known:
            known[nameless] = _answers(replace(plan, stages=(*before, planned)), name)
        yield name, known[nameless]


def _nameless(planned: PlannedStage, before: list[PlannedStage]) -> str:
    """Return all that an answer can follow from: an endpoint's guards stand before it."""
    stage = planned.stage
    if stage.endpoint:
        return repr((planned, before))
    return repr(replace(planned, stage=replace(stage, name="", inputs={}, after=())))


def _answers(plan: Plan, name: str) -> Mapping[FailureKind, str]:
    run = begin(RunHeader(run="forecast", plan=plan))
    return {kind: _after(run, name, kind) for kind in FailureKind if kind not in _NO_FAILURES}


def _after(run: Run, name: str, kind: FailureKind) -> str:
    """Say what follows where the kind is certain, and what else where it is a guess alone."""
    sure, guess = (_follows(run, name, kind, certain=certain) for certain in (True, False))
    if kind not in GUESSED or guess == sure:
        return sure
    return f"{sure}, or where it is a guess {guess}"


def _follows(run: Run, name: str, kind: FailureKind, *, certain: bool) -> str:
    stage = run.stages[name]
    failed = Attempt(
        stage=name,
        number=1,
        pool=stage.pool,
        state=AttemptState.FAILED,
        started=0.0,
        failure=Failure(kind=kind, evidence="", pool=stage.pool, node=NODE, certain=certain),
    )
    deciding = replace(stage, state=StageState.DECIDING, attempts=(failed,))
    run = replace(run, stages={**run.stages, name: deciding})
    event = follow_up(run, deciding, 0.0, spent=None)
    outcome = event.reason.removeprefix(f"{kind}: ").strip()
    verb = _VERBS.get(type(event), "")
    return f"{verb} {outcome}".strip()
