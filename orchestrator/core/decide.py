"""What to do next: (run, now) -> commands. Pure; the loop carries the commands out.

Every command moves the run on: calling `decide` again after its commands have been carried out
and their events applied reaches an empty answer, which means wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.failure import DEFAULT_ACTIONS, Action, Failure, FailureKind
from orchestrator.core.run import Attempt, Run, StageRun, stage_cost
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
    commands = [command for stage in run.stages.values() for command in _next(run, stage, now)]
    if not commands and all(stage.done for stage in run.stages.values()):
        return (Record(_verdict(run)),)
    return tuple(commands)


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


def _next(run: Run, stage: StageRun, now: float) -> Iterator[Command]:
    if stage.state is StageState.DECIDING:
        yield Record(_after_failure(stage, now))
    elif stage.state is StageState.RUNNING:
        failure = _over_limit(run, stage, stage.attempts[-1], now)
        if failure:
            yield Expire(stage.name, stage.attempts[-1].number, failure)
    elif stage.state is StageState.PENDING:
        yield from _start(run, stage, now)


def _start(run: Run, stage: StageRun, now: float) -> Iterator[Command]:
    before = [run.stages[name] for name in stage.planned.stage.upstream]
    lost = next((s for s in before if s.done and s.state is not StageState.SUCCEEDED), None)
    if lost:
        yield Record(StageSkipped(stage.name, f"stage {lost.name!r} {lost.state}"))
    elif now >= stage.not_before and all(s.done for s in before):
        yield Start(stage.name, len(stage.attempts) + 1, stage.pool)


def _after_failure(stage: StageRun, now: float) -> Event:
    failure = stage.attempts[-1].failure
    assert failure is not None, "a stage that is deciding has a failed attempt"  # noqa: S101
    limits, action = stage.planned.stage.limits, action_for(stage, failure.kind)
    if action is Action.STOP:
        return StageFailed(stage.name, f"{failure.kind}: {failure.evidence}")
    if len(stage.attempts) >= limits.attempts:
        reason = f"{failure.kind}: {failure.evidence} (attempt {len(stage.attempts)}, the last)"
        return StageFailed(stage.name, reason)
    pool = stage.pool if action is Action.RETRY else _next_pool(stage)
    if pool is None:
        reason = f"{failure.kind}: {failure.evidence} (no pool left to fall back to)"
        return StageFailed(stage.name, reason)
    wait = 0.0 if pool != stage.pool else limits.backoff * 2 ** (_tries_here(stage) - 1)
    verb = "retry on" if pool == stage.pool else "fall back to"
    return RetryScheduled(stage.name, pool, now + wait, f"{failure.kind}: {verb} {pool}")


def _next_pool(stage: StageRun) -> str | None:
    pools = stage.planned.pools
    following = pools[pools.index(stage.pool) + 1 :]
    return following[0] if following else None


def _tries_here(stage: StageRun) -> int:
    return sum(attempt.pool == stage.pool for attempt in stage.attempts)


def _over_limit(run: Run, stage: StageRun, attempt: Attempt, now: float) -> Failure | None:
    limits = stage.planned.stage.limits
    if attempt.state is AttemptState.WAITING:
        return _waited_too_long(limits.pending, attempt, now)
    first = stage.attempts[0].started
    if limits.timeout is not None and now - first > limits.timeout:
        evidence = f"stage {stage.name!r} ran over its time limit of {limits.timeout!r} s"
        return Failure(kind=FailureKind.TIME, evidence=evidence, pool=attempt.pool)
    if limits.cost is not None and stage_cost(run, stage.name, now) > limits.cost:
        evidence = f"stage {stage.name!r} cost more than its limit of ${limits.cost!r}"
        return Failure(kind=FailureKind.BUDGET, evidence=evidence, pool=attempt.pool)
    limit = run.plan.cost_limit
    if limit is not None and run.spent(now) > limit:
        evidence = f"the run cost more than its limit of ${limit!r}"
        return Failure(kind=FailureKind.BUDGET, evidence=evidence, pool=attempt.pool)
    return None


def _waited_too_long(limit: float | None, attempt: Attempt, now: float) -> Failure | None:
    if limit is None or now - attempt.started <= limit:
        return None
    evidence = f"no free place on pool {attempt.pool!r} within {limit!r} s"
    return Failure(kind=FailureKind.PLACEMENT, evidence=evidence, pool=attempt.pool)


def _verdict(run: Run) -> Event:
    failed = [stage for stage in run.stages.values() if stage.state is StageState.FAILED]
    if not failed:
        return RunSucceeded()
    first = failed[0]
    return RunFailed(f"stage {first.name!r} failed on pool {first.pool!r}: {first.reason}")
