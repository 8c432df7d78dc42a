"""The life cycle of runs, stages and attempts: one table each.

An event that a state does not allow raises `TransitionError`: nothing is swallowed. A state
that only somebody's wish leaves (`WISHES`) is an end: nothing happens in it by itself. `OPEN_TO`
says what may happen to the stages of a run while the run is in a state: a run that is being
cancelled starts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeVar

from orchestrator.core.errors import TransitionError
from orchestrator.core.runs.states import (
    AttemptCancelled,
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
    RunState,
    RunSucceeded,
    StageCancelled,
    StageFailed,
    StageHeld,
    StageMoved,
    StagePaused,
    StageReused,
    StageSkipped,
    StageState,
)

_R, _S, _A = RunState, StageState, AttemptState

RUN_TRANSITIONS: Mapping[tuple[RunState, type[Event]], RunState] = MappingProxyType(
    {
        (_R.PENDING, RunStarted): _R.RUNNING,
        (_R.PENDING, CancelRequested): _R.CANCELLING,
        (_R.PENDING, RunFailed): _R.FAILED,
        (_R.RUNNING, RunStarted): _R.RUNNING,
        (_R.RUNNING, CancelRequested): _R.CANCELLING,
        (_R.RUNNING, RunSucceeded): _R.SUCCEEDED,
        (_R.RUNNING, RunFailed): _R.FAILED,
        (_R.RUNNING, RunPaused): _R.PAUSED,
        (_R.CANCELLING, RunStarted): _R.CANCELLING,
        (_R.CANCELLING, CancelRequested): _R.CANCELLING,
        (_R.CANCELLING, RunCancelled): _R.CANCELLED,
        (_R.PENDING, RunReopened): _R.PENDING,  # of these two only limits and code change
        (_R.RUNNING, RunReopened): _R.RUNNING,
        (_R.PAUSED, RunReopened): _R.RUNNING,
        (_R.FAILED, RunReopened): _R.RUNNING,
        (_R.CANCELLED, RunReopened): _R.RUNNING,
        (_R.SUCCEEDED, RunReopened): _R.RUNNING,
    }
)

STAGE_TRANSITIONS: Mapping[tuple[StageState, type[Event]], StageState] = MappingProxyType(
    {
        (_S.PENDING, AttemptStarted): _S.RUNNING,
        (_S.PENDING, StageReused): _S.SUCCEEDED,
        (_S.PENDING, StageHeld): _S.PENDING,
        (_S.PENDING, StageMoved): _S.PENDING,
        (_S.PENDING, GateReached): _S.PENDING,
        (_S.PENDING, GateOpened): _S.PENDING,
        (_S.PENDING, StageFailed): _S.FAILED,
        (_S.PENDING, StagePaused): _S.PAUSED,
        (_S.PENDING, StageSkipped): _S.SKIPPED,
        (_S.PENDING, StageCancelled): _S.CANCELLED,
        (_S.RUNNING, AttemptWaits): _S.RUNNING,
        (_S.RUNNING, AttemptPlaced): _S.RUNNING,
        (_S.RUNNING, AttemptResumed): _S.RUNNING,
        (_S.RUNNING, AttemptSaved): _S.RUNNING,
        (_S.RUNNING, LeaveRequested): _S.RUNNING,
        (_S.RUNNING, AttemptSucceeded): _S.SUCCEEDED,
        (_S.RUNNING, AttemptFailed): _S.DECIDING,
        (_S.RUNNING, AttemptCancelled): _S.CANCELLED,
        (_S.DECIDING, RetryScheduled): _S.PENDING,
        (_S.DECIDING, StageFailed): _S.FAILED,
        (_S.DECIDING, StagePaused): _S.PAUSED,
        (_S.DECIDING, StageCancelled): _S.CANCELLED,
        (_S.PENDING, RunReopened): _S.PENDING,
        (_S.PAUSED, RunReopened): _S.PENDING,
        (_S.SUCCEEDED, RunReopened): _S.PENDING,
        (_S.FAILED, RunReopened): _S.PENDING,
        (_S.SKIPPED, RunReopened): _S.PENDING,
        (_S.CANCELLED, RunReopened): _S.PENDING,
    }
)

ATTEMPT_TRANSITIONS: Mapping[tuple[AttemptState, type[Event]], AttemptState] = MappingProxyType(
    {
        (_A.NEW, AttemptStarted): _A.WAITING,
        (_A.WAITING, AttemptWaits): _A.WAITING,
        (_A.WAITING, AttemptPlaced): _A.RUNNING,
        (_A.WAITING, AttemptResumed): _A.WAITING,  # one worker may be heard before all are
        (_A.WAITING, AttemptSaved): _A.WAITING,
        (_A.WAITING, LeaveRequested): _A.WAITING,
        (_A.WAITING, AttemptSucceeded): _A.SUCCEEDED,
        (_A.WAITING, AttemptFailed): _A.FAILED,
        (_A.WAITING, AttemptCancelled): _A.CANCELLED,
        (_A.RUNNING, AttemptResumed): _A.RUNNING,
        (_A.RUNNING, AttemptSaved): _A.RUNNING,
        (_A.RUNNING, LeaveRequested): _A.RUNNING,
        (_A.RUNNING, AttemptSucceeded): _A.SUCCEEDED,
        (_A.RUNNING, AttemptFailed): _A.FAILED,
        (_A.RUNNING, AttemptCancelled): _A.CANCELLED,
    }
)

_SAID: frozenset[type[Event]] = frozenset(
    {
        AttemptWaits,
        AttemptPlaced,
        AttemptResumed,
        AttemptSaved,
        AttemptSucceeded,
        AttemptFailed,
    }
)
_DECIDED: frozenset[type[Event]] = frozenset(
    {
        AttemptStarted,
        LeaveRequested,
        StageReused,
        RetryScheduled,
        StageHeld,
        StageMoved,
        GateReached,
        GateOpened,
        StageFailed,
        StagePaused,
        StageSkipped,
    }
)
# What somebody asks for after an end: a state that is left by these alone is one.
WISHES: frozenset[type[Event]] = frozenset({RunReopened})

# What may happen to the stages of a run in a state without a row: nothing.
OPEN_TO: Mapping[RunState, frozenset[type[Event]]] = MappingProxyType(
    {
        _R.RUNNING: _SAID | _DECIDED,
        _R.CANCELLING: _SAID | {AttemptCancelled, StageCancelled},
    }
)

State = TypeVar("State", RunState, StageState, AttemptState)


def _ends(
    states: type[State], table: Mapping[tuple[State, type[Event]], State]
) -> frozenset[State]:
    left = {source for source, event in table if event not in WISHES}
    return frozenset(state for state in states if state not in left)


# The states in which nothing happens by itself any more.
RUN_ENDS = _ends(RunState, RUN_TRANSITIONS)
STAGE_ENDS = _ends(StageState, STAGE_TRANSITIONS)
ATTEMPT_ENDS = _ends(AttemptState, ATTEMPT_TRANSITIONS)


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
