"""A run is the fold of its events.

`fold(header, events)` and applying the same events one by one give equal runs: replay is live.
An event that does not fit raises `TransitionError`, and the run stays as it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import singledispatch

from orchestrator.core.errors import TransitionError
from orchestrator.core.runs.run import Attempt, Run, RunHeader, StageRun
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptEvent,
    AttemptFailed,
    AttemptPlaced,
    AttemptResumed,
    AttemptSaved,
    AttemptStarted,
    AttemptState,
    AttemptSucceeded,
    AttemptWaits,
    CancelRequested,
    Event,
    GateOpened,
    GateReached,
    LeaveRequested,
    RetryScheduled,
    RunCancelled,
    RunFailed,
    RunPaused,
    RunReopened,
    RunStarted,
    RunSucceeded,
    StageCancelled,
    StageEvent,
    StageFailed,
    StageHeld,
    StageMoved,
    StagePaused,
    StageReused,
    StageSkipped,
)
from orchestrator.core.runs.transitions import (
    ATTEMPT_TRANSITIONS,
    OPEN_TO,
    RUN_TRANSITIONS,
    STAGE_TRANSITIONS,
    advance,
)
from orchestrator.core.spec.policy import AS_PLANNED

NEWEST_SAVED = 100  # checkpoints of an attempt that are known; more where more are kept


def begin(header: RunHeader) -> Run:
    """Return the run of `header` before its first event."""
    stages = {
        planned.stage.name: StageRun(planned=planned, pool=planned.pools[0])
        for planned in header.plan.stages
    }
    return Run(header=header, stages=stages)


def fold(header: RunHeader, events: Iterable[tuple[float, Event]]) -> Run:
    """Return the run after `events`, each with its time in seconds since the epoch."""
    run = begin(header)
    for at, event in events:
        run = apply(run, event, at)
    return run


def apply(run: Run, event: Event, at: float) -> Run:
    """Return the run after `event`, which happened at `at` seconds since the epoch.

    Raises:
        TransitionError: The event does not fit the run's state.
    """
    return replace(_apply(event, run, at), seq=run.seq + 1, at=at)


@singledispatch
def _apply(event: Event, run: Run, at: float) -> Run:
    message = f"{event!r} at {at!r} is not an event of run {run.header.run!r}"
    raise TransitionError(message)


@_apply.register
def _(event: RunStarted, run: Run, at: float) -> Run:
    if event.epoch <= run.epoch:
        message = f"epoch {event.epoch!r} is not above {run.epoch!r}"
        raise TransitionError(message)
    state = advance(RUN_TRANSITIONS, run.state, event)
    lost_at, driven = run.lost_at, run.driven
    if run.since is not None:  # the one before it never said that it ended
        lost_at = max(run.at or at, min(event.seen or run.since, at))
        driven += lost_at - run.since
    started = at if run.started is None else run.started
    return replace(
        run,
        state=state,
        epoch=event.epoch,
        started=started,
        since=at,
        lost_at=lost_at,
        driven=driven,
    )


@_apply.register
def _(event: CancelRequested, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return replace(run, state=advance(RUN_TRANSITIONS, run.state, event), reason=event.reason)


@_apply.register(RunSucceeded)
@_apply.register(RunFailed)
@_apply.register(RunPaused)
@_apply.register(RunCancelled)
def _(event: RunSucceeded | RunFailed | RunPaused | RunCancelled, run: Run, at: float) -> Run:
    state = advance(RUN_TRANSITIONS, run.state, event)
    if run.active:
        message = f"run {run.header.run!r} still has active attempts: {event!r}"
        raise TransitionError(message)
    reason = event.reason if isinstance(event, RunFailed | RunPaused) else run.reason
    driven = run.seconds(at)
    return replace(run, state=state, ended=at, reason=reason, driven=driven, since=None)


@_apply.register
def _(event: RunReopened, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    state = advance(RUN_TRANSITIONS, run.state, event)
    unknown = [name for name in (*event.stages, *event.limits) if name not in run.stages]
    if unknown:
        message = f"run {run.header.run!r} has no stage {unknown[0]!r}: {event!r}"
        raise TransitionError(message)
    limited = {name: _limited(stage, event) for name, stage in run.stages.items()}
    again = {name: _reopened(limited[name], event) for name in event.stages}
    plan = replace(
        run.plan,
        stages=tuple(limited[planned.stage.name].planned for planned in run.plan.stages),
        bounds=event.bounds or run.plan.bounds,
    )
    header = replace(run.header, plan=plan, code=event.code or run.header.code)
    stages = {**limited, **again}
    return replace(run, header=header, state=state, stages=stages, ended=None, reason="")


def _limited(stage: StageRun, event: RunReopened) -> StageRun:
    """Return `stage` with the limits that hold from now on."""
    limits = event.limits.get(stage.name)
    if limits is None:
        return stage
    planned = replace(stage.planned, stage=replace(stage.planned.stage, limits=limits))
    return replace(stage, planned=planned)


def _reopened(stage: StageRun, event: RunReopened) -> StageRun:
    """Return `stage` before its next attempt, with nothing that an earlier one has made."""
    anew = stage.name in event.anew
    return StageRun(
        planned=stage.planned,
        state=advance(STAGE_TRANSITIONS, stage.state, event),
        pool=stage.pool,
        adjust=replace(AS_PLANNED, before=0) if anew else replace(stage.adjust, before=None),
        forgiven=len(stage.attempts),
        anew=anew,
        gate_since=stage.gate_since,
        gate_opened=stage.gate_opened,
        attempts=stage.attempts,
    )


@_apply.register
def _(event: StageReused, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    stage = _open_stage(run, event)
    return _with_stage(
        run,
        event,
        pool=event.pool if event.pool in stage.planned.pools else stage.pool,
        adjust=event.adjust,
        artifact=event.artifact,
        metrics=event.metrics,
        reused_from=event.from_run,
    )


@_apply.register
def _(event: RetryScheduled, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return _with_stage(
        run,
        event,
        attempts=_decided(run, event, event.reason),
        pool=event.pool,
        not_before=event.not_before,
        reason=event.reason,
        adjust=event.adjust,
        avoid=event.avoid,
    )


@_apply.register
def _(event: StageHeld, run: Run, at: float) -> Run:
    since = _open_stage(run, event).held_since
    return _with_stage(
        run, event, hold_reason=event.reason, held_since=at if since is None else since
    )


@_apply.register
def _(event: StageMoved, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    moved = {"pool": event.pool, "reason": event.reason, "avoid": ()}
    return _with_stage(run, event, **moved, hold_reason="", held_since=None)


@_apply.register
def _(event: GateReached, run: Run, at: float) -> Run:
    return _with_stage(run, event, gate_since=at, hold_reason=event.waits_for)


@_apply.register
def _(event: GateOpened, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return _with_stage(run, event, gate_opened=event.reason, hold_reason="")


@_apply.register(StageFailed)
@_apply.register(StagePaused)
@_apply.register(StageSkipped)
def _(event: StageFailed | StagePaused | StageSkipped, run: Run, at: float) -> Run:  # noqa: ARG001 - as above
    attempts = _decided(run, event, f"{_WORDS.get(type(event), '')}{event.reason}")
    return _with_stage(run, event, reason=event.reason, attempts=attempts)


_WORDS: Mapping[type, str] = {StageFailed: "give up: ", StagePaused: "pause: "}


def _decided(run: Run, event: StageEvent, followed: str) -> tuple[Attempt, ...]:
    """Return the attempts of the stage; the latest knows what followed its failure."""
    attempts = _open_stage(run, event).attempts
    if not attempts or attempts[-1].failure is None or attempts[-1].followed:
        return attempts
    return (*attempts[:-1], replace(attempts[-1], followed=followed))


@_apply.register
def _(event: StageCancelled, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return _with_stage(run, event)


@_apply.register
def _(event: AttemptStarted, run: Run, at: float) -> Run:
    stage = _open_stage(run, event)
    if event.number != len(stage.attempts) + 1:
        message = f"stage {event.stage!r} has {len(stage.attempts)!r} attempts: {event!r}"
        raise TransitionError(message)
    attempt = Attempt(
        stage=event.stage,
        number=event.number,
        pool=event.pool,
        state=advance(ATTEMPT_TRANSITIONS, AttemptState.NEW, event),
        started=at,
        epoch=run.epoch,
    )
    begun = {"attempts": (*stage.attempts, attempt), "hold_reason": "", "held_since": None}
    return _with_stage(run, event, pool=event.pool, **begun)


@_apply.register
def _(event: AttemptWaits, run: Run, at: float) -> Run:
    last = _open_stage(run, event).attempts[-1:]
    goes_on = any(a.waits_since is not None and a.queued == event.queued for a in last)
    since = last[0].waits_since if goes_on else at
    waits = {"waits": event.reason, "waits_since": since, "queued": event.queued}
    return _with_stage(run, event, attempts=_moved(run, event, **waits))


@_apply.register
def _(event: AttemptResumed, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return _with_stage(run, event, attempts=_moved(run, event, resumed=event.step))


@_apply.register
def _(event: AttemptSaved, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    stage = _open_stage(run, event)
    before = (attempt.saved for attempt in stage.attempts[-1:])
    most = max(NEWEST_SAVED, stage.planned.stage.recovery.kept)
    saved = (*next(before, ()), event.step)[-most:]
    return _with_stage(run, event, attempts=_moved(run, event, saved=saved))


@_apply.register
def _(event: LeaveRequested, run: Run, at: float) -> Run:
    leaving = {"leaving": event.reason, "leaving_since": at, "goes_to": event.goes_to}
    return _with_stage(run, event, attempts=_moved(run, event, **leaving))


@_apply.register
def _(event: AttemptPlaced, run: Run, at: float) -> Run:
    moved = _moved(run, event, placed=at, nodes=event.nodes, software=event.software, waits="")
    return _with_stage(run, event, attempts=moved)


@_apply.register
def _(event: AttemptSucceeded, run: Run, at: float) -> Run:
    attempts = _moved(run, event, ended=at, metrics=event.metrics)
    return _with_stage(
        run, event, attempts=attempts, artifact=event.artifact, metrics=event.metrics
    )


@_apply.register
def _(event: AttemptFailed, run: Run, at: float) -> Run:
    ended = _end_of(run, event, at)
    attempts = _moved(run, event, ended=ended, failure=event.failure)
    return _with_stage(run, event, attempts=attempts, reason=event.failure.evidence)


@_apply.register
def _(event: AttemptCancelled, run: Run, at: float) -> Run:
    return _with_stage(run, event, attempts=_moved(run, event, ended=_end_of(run, event, at)))


def _end_of(run: Run, event: AttemptFailed | AttemptCancelled, at: float) -> float:
    """Return when an attempt ended: one of an earlier controller did when that was last seen."""
    orphans = [a for a in _open_stage(run, event).attempts[-1:] if a.epoch != run.epoch]
    if not orphans or run.lost_at is None:
        return at
    return max(orphans[0].started, run.lost_at)


def _open_stage(run: Run, event: StageEvent | AttemptEvent) -> StageRun:
    stage = run.stages.get(event.stage)
    if stage is None or type(event) not in OPEN_TO.get(run.state, ()):
        message = f"run {run.header.run!r} ({run.state}) does not allow {event!r}"
        raise TransitionError(message)
    if isinstance(event, AttemptStarted | RetryScheduled | StageMoved):
        _check_pool(stage, event)
    return stage


def _check_pool(stage: StageRun, event: AttemptStarted | RetryScheduled | StageMoved) -> None:
    if event.pool not in stage.planned.pools:
        message = f"stage {event.stage!r} may use {stage.planned.pools!r}, not {event.pool!r}"
        raise TransitionError(message)


def _with_stage(run: Run, event: StageEvent | AttemptEvent, **changes: object) -> Run:
    stage = _open_stage(run, event)
    state = advance(STAGE_TRANSITIONS, stage.state, event)
    changed = replace(stage, state=state, **changes)  # type: ignore[arg-type]
    return replace(run, stages={**run.stages, event.stage: changed})


def _moved(run: Run, event: AttemptEvent, **changes: object) -> tuple[Attempt, ...]:
    attempts = _open_stage(run, event).attempts
    if not attempts or attempts[-1].number != event.number:
        message = f"{event!r} is not about the latest attempt of stage {event.stage!r}"
        raise TransitionError(message)
    state = advance(ATTEMPT_TRANSITIONS, attempts[-1].state, event)
    return (*attempts[:-1], replace(attempts[-1], state=state, **changes))  # type: ignore[arg-type]
