"""What to do next: (run, now) -> commands. Pure; the loop carries the commands out.

Every command moves the run on: calling `decide` again after its commands have been carried out
and their events applied reaches an empty answer, which means wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.failure import DEFAULT_ACTIONS, Action, Failure, FailureKind
from orchestrator.core.limits import exhausted, over_budget, waited_too_long
from orchestrator.core.run import Run, StageRun
from orchestrator.core.state import (
    AttemptState,
    Event,
    RetryScheduled,
    RunCancelled,
    RunFailed,
    RunState,
    RunSucceeded,
    StageCancelled,
    StageFailed,
    StageSkipped,
    StageState,
)

DOUBLINGS = 10


@dataclass(frozen=True, slots=True)
class Start:
    """Start attempt `number` of `stage` on `pool`, or reuse an earlier result."""

    stage: str
    number: int
    pool: str


@dataclass(frozen=True, slots=True)
class Expire:
    """End an attempt that is over a limit; it failed for that reason."""

    stage: str
    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Cancel:
    """End an attempt because the run is being cancelled."""

    stage: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """Commit an event; nothing in the world changes."""

    event: Event


Command: TypeAlias = Start | Expire | Cancel | Record


def decide(run: Run, now: float) -> tuple[Command, ...]:
    """Return what to do at `now` (seconds since the epoch)."""
    if run.state is RunState.CANCELLING:
        return tuple(_wind_down(run))
    if run.state is not RunState.RUNNING:
        return ()
    if all(stage.done for stage in run.stages.values()):
        return (Record(_verdict(run)),)
    broke = over_budget(run, now)
    stages = run.stages.values()
    return tuple(command for stage in stages for command in _next(run, stage, now, broke=broke))


def action_for(stage: StageRun, kind: FailureKind) -> Action:
    """Return what a failure of `kind` leads to in this stage."""
    return stage.planned.stage.on_failure.get(kind, DEFAULT_ACTIONS[kind])


def _wind_down(run: Run) -> Iterator[Command]:
    for stage in run.stages.values():
        if stage.state is StageState.RUNNING:
            yield Cancel(stage.name, stage.attempts[-1].number)
        elif not stage.done:
            yield Record(StageCancelled(stage.name))
    if all(stage.done for stage in run.stages.values()):
        yield Record(RunCancelled())


def _next(run: Run, stage: StageRun, now: float, *, broke: bool) -> Iterator[Command]:
    if stage.state is StageState.PENDING:
        yield from _begin(run, stage, now, broke=broke)
    elif stage.state is StageState.RUNNING:
        yield from _watch(run, stage, now, broke=broke)
    elif stage.state is StageState.DECIDING:
        yield Record(_after_failure(run, stage, now, broke=broke))


def _begin(run: Run, stage: StageRun, now: float, *, broke: bool) -> Iterator[Command]:
    before = [run.stages[name] for name in stage.planned.stage.upstream]
    lost = next((s for s in before if s.done and s.state is not StageState.SUCCEEDED), None)
    if lost:
        yield Record(StageSkipped(stage.name, f"stage {lost.name!r} {lost.state}"))
    elif all(s.done for s in before):
        spent = exhausted(run, stage, now, broke=broke)
        if spent:
            yield Record(StageFailed(stage.name, f"{spent.kind}: {spent.evidence}"))
        elif now >= stage.not_before:
            yield Start(stage.name, len(stage.attempts) + 1, stage.pool)


def _watch(run: Run, stage: StageRun, now: float, *, broke: bool) -> Iterator[Command]:
    attempt = stage.attempts[-1]
    failure = exhausted(run, stage, now, broke=broke)
    if failure is None and attempt.state is AttemptState.WAITING:
        failure = waited_too_long(stage, attempt, now)
    if failure:
        yield Expire(stage.name, attempt.number, failure)


def _after_failure(run: Run, stage: StageRun, now: float, *, broke: bool) -> Event:
    failure = stage.attempts[-1].failure
    assert failure is not None, "a stage that is deciding has a failed attempt"  # noqa: S101
    action = action_for(stage, failure.kind)
    end = _end_of_tries(stage, action, exhausted(run, stage, now, broke=broke))
    if end is not None:
        return StageFailed(stage.name, f"{failure.kind}: {failure.evidence}{end}")
    if action is Action.RETRY:
        reason = f"{failure.kind}: retry on {stage.pool}"
        return RetryScheduled(stage.name, stage.pool, now + _backoff(stage), reason)
    pool = _pools_left(stage)[0]
    return RetryScheduled(stage.name, pool, now, f"{failure.kind}: fall back to {pool}")


def _end_of_tries(stage: StageRun, action: Action, spent: Failure | None) -> str | None:
    """Return why no further attempt follows, as the end of a sentence, or `None`."""
    if action is Action.STOP:
        return ""
    if len(stage.attempts) >= stage.planned.stage.limits.attempts:
        return f" (attempt {len(stage.attempts)}, the last)"
    if action is Action.FALL_BACK and not _pools_left(stage):
        return " (no pool left to fall back to)"
    return f" ({spent.evidence})" if spent else None


def _backoff(stage: StageRun) -> float:
    tries = sum(attempt.pool == stage.pool for attempt in stage.attempts)
    return stage.planned.stage.limits.backoff * 2.0 ** min(tries - 1, DOUBLINGS)


def _pools_left(stage: StageRun) -> tuple[str, ...]:
    pools = stage.planned.pools
    return pools[pools.index(stage.pool) + 1 :]


def _verdict(run: Run) -> Event:
    failed = [stage for stage in run.stages.values() if stage.state is StageState.FAILED]
    if not failed:
        return RunSucceeded()
    first = failed[0]
    return RunFailed(f"stage {first.name!r} failed on pool {first.pool!r}: {first.reason}")
