"""A run: its header, which never changes, and the fold of its events.

`fold(header, events)` and applying the same events one by one give equal runs: replay is live.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import singledispatch
from itertools import pairwise

from orchestrator.core import cost
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.errors import TransitionError
from orchestrator.core.failure import Failure
from orchestrator.core.plan import Plan, PlannedStage
from orchestrator.core.spec import Json
from orchestrator.core.state import (
    ATTEMPT_TRANSITIONS,
    RUN_TRANSITIONS,
    STAGE_TRANSITIONS,
    AttemptCancelled,
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    AttemptState,
    AttemptSucceeded,
    CancelRequested,
    Event,
    RetryScheduled,
    RunCancelled,
    RunFailed,
    RunStarted,
    RunState,
    RunSucceeded,
    StageCancelled,
    StageFailed,
    StageReused,
    StageSkipped,
    StageState,
    advance,
    terminal,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What is known when a run is created.

    `config` is the resolved config, `overrides` what the user typed, `tags` go to the tracker.
    `created` is seconds since the epoch.
    """

    run: str
    plan: Plan
    config: Mapping[str, Json] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a stage on one pool. Times in seconds since the epoch."""

    stage: str
    number: int
    pool: str
    state: AttemptState
    started: float
    placed: float | None = None
    ended: float | None = None
    nodes: tuple[str, ...] = ()
    failure: Failure | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether it still runs, or waits for its place."""
        return not terminal(ATTEMPT_TRANSITIONS, self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """A stage of a run. `pool` is where its next or latest attempt goes."""

    planned: PlannedStage
    state: StageState = StageState.PENDING
    pool: str
    not_before: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    artifact: ArtifactRef | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reused_from: str | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.planned.stage.name

    @property
    def done(self) -> bool:
        """Whether its state is terminal."""
        return terminal(STAGE_TRANSITIONS, self.state)

    @property
    def failovers(self) -> int:
        """How often the stage moved to another pool."""
        pools = [attempt.pool for attempt in self.attempts]
        return sum(a != b for a, b in pairwise(pools))

    def device_hours(self, now: float) -> float:
        """Return the device-hours that its attempts held, up to `now`."""
        placed = ((a.placed, a.ended) for a in self.attempts if a.placed is not None)
        seconds = sum((now if ended is None else ended) - start for start, ended in placed)
        return cost.device_hours(self.planned.devices, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a pipeline, after `seq` events."""

    header: RunHeader
    state: RunState = RunState.PENDING
    stages: Mapping[str, StageRun] = field(default_factory=dict)
    seq: int = 0
    epoch: int = 0
    started: float | None = None
    ended: float | None = None
    reason: str = ""

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return self.header.plan

    @property
    def done(self) -> bool:
        """Whether its state is terminal."""
        return terminal(RUN_TRANSITIONS, self.state)

    @property
    def active(self) -> tuple[Attempt, ...]:
        """Attempts that run or wait for their place."""
        return tuple(a for stage in self.stages.values() for a in stage.attempts[-1:] if a.active)

    @property
    def failovers(self) -> int:
        """How often any stage moved to another pool."""
        return sum(stage.failovers for stage in self.stages.values())

    def spent(self, now: float) -> float:
        """Return the known cost so far in US dollars; pools of unknown price count nothing."""
        return sum(stage_cost(self, name, now) for name in self.stages)


def stage_cost(run: Run, name: str, now: float) -> float:
    """Return the known cost of a stage so far, US dollars; unknown prices count nothing."""
    stage = run.stages[name]
    total = 0.0
    for attempt in stage.attempts:
        if attempt.placed is not None:
            end = now if attempt.ended is None else attempt.ended
            hours = cost.device_hours(stage.planned.devices, end - attempt.placed)
            total += cost.money(hours, run.plan.pools[attempt.pool].price) or 0.0
    return total


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
    return replace(_apply(event, run, at), seq=run.seq + 1)


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
    return replace(run, state=state, epoch=event.epoch, started=run.started or at)


@_apply.register
def _(event: CancelRequested, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return replace(run, state=advance(RUN_TRANSITIONS, run.state, event), reason=event.reason)


@_apply.register(RunSucceeded)
@_apply.register(RunFailed)
@_apply.register(RunCancelled)
def _(event: RunSucceeded | RunFailed | RunCancelled, run: Run, at: float) -> Run:
    state = advance(RUN_TRANSITIONS, run.state, event)
    reason = event.reason if isinstance(event, RunFailed) else run.reason
    return replace(run, state=state, ended=at, reason=reason)


@_apply.register
def _(event: StageReused, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return _with_stage(
        run,
        event,
        artifact=event.artifact,
        metrics=event.metrics,
        reused_from=event.from_run,
    )


@_apply.register
def _(event: RetryScheduled, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return _with_stage(
        run, event, pool=event.pool, not_before=event.not_before, reason=event.reason
    )


@_apply.register(StageFailed)
@_apply.register(StageSkipped)
def _(event: StageFailed | StageSkipped, run: Run, at: float) -> Run:  # noqa: ARG001 - as above
    return _with_stage(run, event, reason=event.reason)


@_apply.register
def _(event: StageCancelled, run: Run, at: float) -> Run:  # noqa: ARG001 - one signature for all
    return _with_stage(run, event)


@_apply.register
def _(event: AttemptStarted, run: Run, at: float) -> Run:
    stage = _stage(run, event.stage)
    if event.number != len(stage.attempts) + 1:
        message = f"stage {event.stage!r} has {len(stage.attempts)!r} attempts: {event!r}"
        raise TransitionError(message)
    attempt = Attempt(
        stage=event.stage,
        number=event.number,
        pool=event.pool,
        state=advance(ATTEMPT_TRANSITIONS, AttemptState.NEW, event),
        started=at,
    )
    return _with_stage(run, event, pool=event.pool, attempts=(*stage.attempts, attempt))


@_apply.register
def _(event: AttemptPlaced, run: Run, at: float) -> Run:
    return _with_stage(run, event, attempts=_moved(run, event, placed=at, nodes=event.nodes))


@_apply.register
def _(event: AttemptSucceeded, run: Run, at: float) -> Run:
    attempts = _moved(run, event, ended=at, metrics=event.metrics)
    return _with_stage(
        run, event, attempts=attempts, artifact=event.artifact, metrics=event.metrics
    )


@_apply.register
def _(event: AttemptFailed, run: Run, at: float) -> Run:
    attempts = _moved(run, event, ended=at, failure=event.failure)
    return _with_stage(run, event, attempts=attempts, reason=event.failure.evidence)


@_apply.register
def _(event: AttemptCancelled, run: Run, at: float) -> Run:
    return _with_stage(run, event, attempts=_moved(run, event, ended=at))


def _stage(run: Run, name: str) -> StageRun:
    if run.done or name not in run.stages:
        message = f"run {run.header.run!r} ({run.state}) has no open stage {name!r}"
        raise TransitionError(message)
    return run.stages[name]


def _with_stage(
    run: Run,
    event: StageReused
    | RetryScheduled
    | StageFailed
    | StageSkipped
    | StageCancelled
    | AttemptStarted
    | AttemptPlaced
    | AttemptSucceeded
    | AttemptFailed
    | AttemptCancelled,
    **changes: object,
) -> Run:
    stage = _stage(run, event.stage)
    state = advance(STAGE_TRANSITIONS, stage.state, event)
    changed = replace(stage, state=state, **changes)  # type: ignore[arg-type]
    return replace(run, stages={**run.stages, event.stage: changed})


def _moved(
    run: Run,
    event: AttemptPlaced | AttemptSucceeded | AttemptFailed | AttemptCancelled,
    **changes: object,
) -> tuple[Attempt, ...]:
    attempts = _stage(run, event.stage).attempts
    if not attempts or attempts[-1].number != event.number:
        message = f"{event!r} is not about the latest attempt of stage {event.stage!r}"
        raise TransitionError(message)
    state = advance(ATTEMPT_TRANSITIONS, attempts[-1].state, event)
    return (*attempts[:-1], replace(attempts[-1], state=state, **changes))  # type: ignore[arg-type]
