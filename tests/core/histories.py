"""Runs of one stage `s` after some events, and what follows a failed attempt of it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.limits import exhausted
from orchestrator.core.runs.recovery import Outlook, follow_up
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptStarted,
    Event,
    RetryScheduled,
    RunStarted,
    StageFailed,
    StagePaused,
)
from orchestrator.core.spec.plan import Plan
from tests.build import failure, header


def after(planned: Plan, *events: Event, at: float = 0.0) -> Run:
    """Return the running run of `planned` after `events`, all at time `at`."""
    run = apply(begin(header(planned)), RunStarted(1), at)
    for event in events:
        run = apply(run, event, at)
    return run


def failed(
    number: int, kind: FailureKind, where: str = "a", **changes: object
) -> tuple[Event, ...]:
    """Return what is committed of an attempt that fails on pool `where`."""
    shown = replace(failure(kind), **changes)  # type: ignore[arg-type]
    return (AttemptStarted("s", number, where), AttemptFailed("s", number, shown))


def answer(run: Run, outlook: Outlook | None = None) -> RetryScheduled | StageFailed | StagePaused:
    """Return what follows the last failure."""
    one = run.stages["s"]
    spent = exhausted(run, one, 0.0, broke=False)
    return follow_up(run, one, 0.0, spent=spent, outlook=outlook or Outlook())


def scheduled(run: Run, outlook: Outlook | None = None) -> RetryScheduled:
    """Return the attempt that follows the last failure; there is one."""
    event = answer(run, outlook)
    assert isinstance(event, RetryScheduled), event
    return event
