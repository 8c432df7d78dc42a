"""The life cycle is three tables, and what is not in them raises."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.errors import TransitionError
from orchestrator.core.runs.states import (
    EVENTS,
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
from orchestrator.core.runs.transitions import (
    ATTEMPT_ENDS,
    ATTEMPT_TRANSITIONS,
    OPEN_TO,
    RUN_ENDS,
    RUN_TRANSITIONS,
    STAGE_ENDS,
    STAGE_TRANSITIONS,
    advance,
)
from tests.build import failure

REF = ArtifactRef("file:///a", "0" * 64, 1)
ONE_OF_EACH: tuple[Event, ...] = (
    RunStarted(1),
    CancelRequested("enough"),
    RunSucceeded(),
    RunFailed("broken"),
    RunPaused("nobody knows"),
    RunReopened(reason="go on", stages=("s",)),
    RunCancelled(),
    StageReused("s", REF, {}, "other"),
    RetryScheduled("s", "a", 0.0, "again"),
    StageHeld("s", "others go first"),
    StageMoved("s", "a", "emptied"),
    GateReached("s", "labels"),
    GateOpened("s", "there"),
    StageFailed("s", "broken"),
    StagePaused("s", "nobody knows"),
    StageSkipped("s", "lost"),
    StageCancelled("s"),
    AttemptStarted("s", 1, "a"),
    AttemptWaits("s", 1, "busy"),
    AttemptPlaced("s", 1, ("n",)),
    AttemptResumed("s", 1, 3),
    AttemptSaved("s", 1, 4),
    LeaveRequested("s", 1, "emptied"),
    AttemptSucceeded("s", 1, REF),
    AttemptFailed("s", 1, failure()),
    AttemptCancelled("s", 1),
)
TABLES: tuple[Mapping[Any, Any], ...] = (
    RUN_TRANSITIONS,
    STAGE_TRANSITIONS,
    ATTEMPT_TRANSITIONS,
)
STATES = (RunState, StageState, AttemptState)
TERMINAL = (
    {RunState.PAUSED, RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED},
    {
        StageState.PAUSED,
        StageState.SUCCEEDED,
        StageState.FAILED,
        StageState.SKIPPED,
        StageState.CANCELLED,
    },
    {AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.CANCELLED},
)


def pairs() -> Iterator[tuple[Mapping[Any, Any], Any, Event]]:
    for table, states in zip(TABLES, STATES, strict=True):
        for state, event in product(states, ONE_OF_EACH):
            yield table, state, event


def test_there_is_one_event_of_each_kind_here() -> None:
    assert {type(event) for event in ONE_OF_EACH} == set(EVENTS.values())
    assert {name: kind.__name__ for name, kind in EVENTS.items()} == {
        name: name for name in EVENTS
    }


def test_every_pair_that_is_not_in_its_table_raises() -> None:
    for table, state, event in pairs():
        if (state, type(event)) in table:
            assert advance(table, state, event) == table[state, type(event)]
        else:
            with pytest.raises(TransitionError, match=type(event).__name__):
                advance(table, state, event)


def test_the_ends_are_the_states_that_only_a_wish_leaves() -> None:
    assert [set(ends) for ends in TERMINAL] == [RUN_ENDS, STAGE_ENDS, ATTEMPT_ENDS]


def test_every_end_of_a_run_has_a_way_back() -> None:
    assert all(RUN_TRANSITIONS[end, RunReopened] is RunState.RUNNING for end in RUN_ENDS)
    assert all(STAGE_TRANSITIONS[end, RunReopened] is StageState.PENDING for end in STAGE_ENDS)


@pytest.mark.parametrize(("table", "states"), [*zip(TABLES, STATES, strict=True)])
def test_every_state_is_reached_from_the_first(
    table: Mapping[Any, Any], states: type[RunState]
) -> None:
    seen, found = set(), {next(iter(states))}
    while found != seen:
        seen = found
        found = seen | {after for (state, _), after in table.items() if state in seen}
    assert seen == set(states)


def test_a_run_that_ended_or_never_began_is_open_to_nothing() -> None:
    assert set(OPEN_TO) == {RunState.RUNNING, RunState.CANCELLING}


def test_nothing_new_starts_while_a_run_is_being_cancelled() -> None:
    starts = {AttemptStarted, StageReused, RetryScheduled}
    assert starts <= OPEN_TO[RunState.RUNNING]
    assert not starts & OPEN_TO[RunState.CANCELLING]


def test_every_event_of_a_stage_is_open_somewhere() -> None:
    rows = {kind for _, kind in (*STAGE_TRANSITIONS, *ATTEMPT_TRANSITIONS)} - {RunReopened}
    assert frozenset().union(*OPEN_TO.values()) == rows
