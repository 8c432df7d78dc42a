"""The life cycle of runs, stages and attempts: their states, the events, and one table each.

An event that a state does not allow raises `TransitionError`: nothing is swallowed. A state
without a row in its table is terminal. `OPEN_TO` says what may happen to the stages of a run
while the run is in a state: a run that is being cancelled starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TypeAlias, TypeVar

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.errors import TransitionError
from orchestrator.core.failure import Failure


class RunState(StrEnum):
    """State of a run."""

    PENDING = "pending"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class StageState(StrEnum):
    """State of a stage. DECIDING: its attempt failed, and what follows is not decided yet."""

    PENDING = "pending"
    RUNNING = "running"
    DECIDING = "deciding"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"


class AttemptState(StrEnum):
    """State of an attempt. WAITING: asked for, not placed on its pool yet."""

    NEW = "new"
    WAITING = "waiting"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


# --- events of a run --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A controller began, or took over; `epoch` is higher than that of any before it."""

    epoch: int


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody asked for the run to end."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunSucceeded:
    """Every stage succeeded."""


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A stage failed; `reason` is one plain sentence."""

    reason: str


@dataclass(frozen=True, slots=True)
class RunCancelled:
    """The run was cancelled, and nothing of it runs any more."""


# --- events of a stage ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StageReused:
    """An earlier run made the same thing: its result stands for this stage's."""

    stage: str
    artifact: ArtifactRef | None
    metrics: Mapping[str, float]
    from_run: str


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    """The stage goes on, on `pool`, not before `not_before` (seconds, epoch)."""

    stage: str
    pool: str
    not_before: float
    reason: str


@dataclass(frozen=True, slots=True)
class StageFailed:
    """The stage is given up."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageSkipped:
    """A stage before it did not succeed."""

    stage: str
    reason: str


@dataclass(frozen=True, slots=True)
class StageCancelled:
    """The run is being cancelled, and the stage had nothing running."""

    stage: str


# --- events of an attempt ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AttemptStarted:
    """The cluster was asked for attempt `number` on `pool`."""

    stage: str
    number: int
    pool: str


@dataclass(frozen=True, slots=True)
class AttemptPlaced:
    """All workers run; `nodes` by rank."""

    stage: str
    number: int
    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AttemptSucceeded:
    """The attempt made its artifact."""

    stage: str
    number: int
    artifact: ArtifactRef | None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The attempt ended without a result."""

    stage: str
    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class AttemptCancelled:
    """The attempt was ended because the run is being cancelled."""

    stage: str
    number: int


RunEvent: TypeAlias = RunStarted | CancelRequested | RunSucceeded | RunFailed | RunCancelled
StageEvent: TypeAlias = StageReused | RetryScheduled | StageFailed | StageSkipped | StageCancelled
AttemptEvent: TypeAlias = (
    AttemptStarted | AttemptPlaced | AttemptSucceeded | AttemptFailed | AttemptCancelled
)
Event: TypeAlias = RunEvent | StageEvent | AttemptEvent

EVENTS: Mapping[str, type[Event]] = MappingProxyType(
    {
        kind.__name__: kind
        for group in (RunEvent, StageEvent, AttemptEvent)
        for kind in group.__args__
    }
)

# --- the tables -------------------------------------------------------------------------------

_R, _S, _A = RunState, StageState, AttemptState

RUN_TRANSITIONS: Mapping[tuple[RunState, type[Event]], RunState] = MappingProxyType(
    {
        (_R.PENDING, RunStarted): _R.RUNNING,
        (_R.PENDING, CancelRequested): _R.CANCELLING,
        (_R.RUNNING, RunStarted): _R.RUNNING,
        (_R.RUNNING, CancelRequested): _R.CANCELLING,
        (_R.RUNNING, RunSucceeded): _R.SUCCEEDED,
        (_R.RUNNING, RunFailed): _R.FAILED,
        (_R.CANCELLING, RunStarted): _R.CANCELLING,
        (_R.CANCELLING, CancelRequested): _R.CANCELLING,
        (_R.CANCELLING, RunCancelled): _R.CANCELLED,
    }
)

STAGE_TRANSITIONS: Mapping[tuple[StageState, type[Event]], StageState] = MappingProxyType(
    {
        (_S.PENDING, AttemptStarted): _S.RUNNING,
        (_S.PENDING, StageReused): _S.SUCCEEDED,
        (_S.PENDING, StageFailed): _S.FAILED,
        (_S.PENDING, StageSkipped): _S.SKIPPED,
        (_S.PENDING, StageCancelled): _S.CANCELLED,
        (_S.RUNNING, AttemptPlaced): _S.RUNNING,
        (_S.RUNNING, AttemptSucceeded): _S.SUCCEEDED,
        (_S.RUNNING, AttemptFailed): _S.DECIDING,
        (_S.RUNNING, AttemptCancelled): _S.CANCELLED,
        (_S.DECIDING, RetryScheduled): _S.PENDING,
        (_S.DECIDING, StageFailed): _S.FAILED,
        (_S.DECIDING, StageCancelled): _S.CANCELLED,
    }
)

ATTEMPT_TRANSITIONS: Mapping[tuple[AttemptState, type[Event]], AttemptState] = MappingProxyType(
    {
        (_A.NEW, AttemptStarted): _A.WAITING,
        (_A.WAITING, AttemptPlaced): _A.RUNNING,
        (_A.WAITING, AttemptSucceeded): _A.SUCCEEDED,
        (_A.WAITING, AttemptFailed): _A.FAILED,
        (_A.WAITING, AttemptCancelled): _A.CANCELLED,
        (_A.RUNNING, AttemptSucceeded): _A.SUCCEEDED,
        (_A.RUNNING, AttemptFailed): _A.FAILED,
        (_A.RUNNING, AttemptCancelled): _A.CANCELLED,
    }
)

_SAID: frozenset[type[Event]] = frozenset({AttemptPlaced, AttemptSucceeded, AttemptFailed})
_DECIDED: frozenset[type[Event]] = frozenset(
    {AttemptStarted, StageReused, RetryScheduled, StageFailed, StageSkipped}
)

# What may happen to the stages of a run in a state without a row: nothing.
OPEN_TO: Mapping[RunState, frozenset[type[Event]]] = MappingProxyType(
    {
        _R.RUNNING: _SAID | _DECIDED,
        _R.CANCELLING: _SAID | {AttemptCancelled, StageCancelled},
    }
)

State = TypeVar("State", RunState, StageState, AttemptState)


def advance(table: Mapping[tuple[State, type[Event]], State], state: State, event: Event) -> State:
    """Return the state that follows `state` on `event`.

    Raises:
        TransitionError: The table has no row for the two.
    """
    following = table.get((state, type(event)))
    if following is None:
        name = type(state).__name__
        message = f"{name} {str(state)!r} does not allow {type(event).__name__}: {event!r}"
        raise TransitionError(message)
    return following


def terminal(table: Mapping[tuple[State, type[Event]], State], state: State) -> bool:
    """Return whether no event leaves `state`."""
    return all(source != state for source, _ in table)
