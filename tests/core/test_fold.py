"""A run is the fold of its events: replay equals live, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrator.core.errors import TransitionError
from orchestrator.core.runs.fold import apply, begin, fold
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.core.runs.states import (
    EVENTS,
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
    RunPaused,
    RunReopened,
    RunStarted,
    RunState,
    RunSucceeded,
    StageCancelled,
    StageFailed,
    StagePaused,
    StageReused,
    StageSkipped,
    StageState,
)
from orchestrator.core.runs.transitions import WISHES
from orchestrator.core.spec.policy import Adjust, Limits
from tests.build import REF, failure, header, plan, pool, stage

PLAN = plan(stage("s"), stage("t", "s"), pools=("a", "b"), a=pool("a", price_per_hour=3600.0))
HEADER = header(PLAN)


def every_event() -> list[Event]:
    """Return all that could be said about the two stages, sensible or not."""
    events: list[Event] = [
        *(RunStarted(epoch) for epoch in (1, 2, 3)),
        CancelRequested("enough"),
        RunSucceeded(),
        RunFailed("broken"),
        RunPaused("nobody knows"),
        RunReopened(reason="go on", stages=("s", "t"), limits={"s": Limits(attempts=9)}),
        RunCancelled(),
    ]
    for name in ("s", "t", "gone"):
        events += [
            StageReused(name, REF, {"loss": 0.5}, "other"),
            *(RetryScheduled(name, to, 9.0, "again") for to in ("a", "b", "x")),
            StageFailed(name, "broken"),
            StagePaused(name, "nobody knows"),
            StageSkipped(name, "lost"),
            StageCancelled(name),
        ]
        for number in (1, 2):
            events += [
                *(AttemptStarted(name, number, to) for to in ("a", "b", "x")),
                AttemptPlaced(name, number, ("n1", "n2")),
                AttemptSucceeded(name, number, REF, {"loss": 0.25}),
                AttemptFailed(name, number, failure()),
                AttemptCancelled(name, number),
            ]
    return events


ALL_EVENTS = every_event()
ADAPTERS = {name: TypeAdapter(kind) for name, kind in EVENTS.items()}
HEADERS = TypeAdapter(RunHeader)


def fits(run: Run, event: Event) -> bool:
    try:
        apply(run, event, 0.0)
    except TransitionError:
        return False
    return True


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[float, Event]]:
    """Draw events that fit one after the other, as a random walk through all that could be."""
    run, history = begin(HEADER), []
    for at in range(draw(st.integers(0, 14))):
        fitting = [event for event in ALL_EVENTS if fits(run, event)]
        if not fitting:
            break
        event = draw(st.sampled_from(fitting))
        run = apply(run, event, float(at))
        history.append((float(at), event))
    return history


def after(*events: Event) -> Run:
    return fold(HEADER, enumerate(events))


def as_json_and_back(history: Iterable[tuple[float, Event]]) -> list[tuple[float, Event]]:
    back: list[tuple[float, Event]] = []
    for at, event in history:
        adapter = ADAPTERS[type(event).__name__]
        back.append((at, adapter.validate_json(adapter.dump_json(event))))
    return back


# --- properties -------------------------------------------------------------------------------


@given(history=histories())
def test_replay_equals_live_even_after_a_round_trip_by_json(
    history: list[tuple[float, Event]],
) -> None:
    live = begin(HEADER)
    for at, event in history:
        live = apply(live, event, at)
    assert fold(HEADER, history) == live
    assert live.seq == len(history)
    header_back = HEADERS.validate_json(HEADERS.dump_json(HEADER))
    assert fold(header_back, as_json_and_back(history)) == live


@given(history=histories())
def test_no_history_leaves_a_terminal_state(history: list[tuple[float, Event]]) -> None:
    run = begin(HEADER)
    for at, event in history:
        following = apply(run, event, at)
        for name, one in run.stages.items():
            again = isinstance(event, RunReopened) and name in event.stages
            assert again or not one.done or following.stages[name] == one
        ended = [a for one in run.stages.values() for a in one.attempts if not a.active]
        for a in ended:  # but what followed is known a moment later
            then = following.stages[a.stage].attempts[a.number - 1]
            assert replace(then, followed=a.followed) == a
        run = following
    if run.done:
        assert {type(event) for event in ALL_EVENTS if fits(run, event)} <= WISHES
        assert not run.active


@given(history=histories())
def test_a_stage_has_at_most_its_last_attempt_active(history: list[tuple[float, Event]]) -> None:
    run = fold(HEADER, history)
    for one in run.stages.values():
        assert not any(attempt.active for attempt in one.attempts[:-1])
        running = one.state is StageState.RUNNING
        assert running == any(attempt.active for attempt in one.attempts)


# --- one by one -------------------------------------------------------------------------------


def test_a_run_starts_with_every_stage_pending_on_its_first_pool() -> None:
    run = begin(HEADER)
    assert run.state is RunState.PENDING
    assert {name: (one.state, one.pool) for name, one in run.stages.items()} == {
        "s": (StageState.PENDING, "a"),
        "t": (StageState.PENDING, "a"),
    }


def test_an_attempt_keeps_when_it_was_asked_for_placed_and_ended() -> None:
    done = AttemptSucceeded("s", 1, REF, {"loss": 0.5})
    run = after(RunStarted(1), AttemptStarted("s", 1, "b"), AttemptPlaced("s", 1, ("n",)), done)
    one = run.stages["s"]
    (attempt,) = one.attempts
    assert (attempt.started, attempt.placed, attempt.ended) == (1, 2, 3)
    assert (attempt.pool, attempt.nodes, attempt.state) == ("b", ("n",), AttemptState.SUCCEEDED)
    assert (one.pool, one.artifact, one.metrics) == ("b", REF, {"loss": 0.5})


def test_a_failed_attempt_keeps_its_failure_and_the_stage_its_evidence() -> None:
    run = after(RunStarted(1), AttemptStarted("s", 1, "a"), AttemptFailed("s", 1, failure()))
    assert run.stages["s"].state is StageState.DECIDING
    assert run.stages["s"].reason == "EI0002"
    assert run.stages["s"].attempts[0].failure == failure()


def test_a_reused_stage_has_the_result_and_names_the_run_that_made_it() -> None:
    run = after(RunStarted(1), StageReused("s", REF, {"loss": 1.0}, "earlier"))
    one = run.stages["s"]
    assert (one.artifact, one.reused_from, one.attempts) == (REF, "earlier", ())


def test_a_reused_stage_is_on_the_pool_that_made_its_result() -> None:
    halved = Adjust(rate=0.5)
    made_there = StageReused("s", REF, {}, "earlier", pool="b", adjust=halved)
    one = after(RunStarted(1), made_there).stages["s"]
    assert (one.pool, one.adjust) == ("b", halved)
    elsewhere = StageReused("s", REF, {}, "earlier", pool="of another fleet")
    assert after(RunStarted(1), elsewhere).stages["s"].pool == "a"


def test_a_move_to_another_pool_is_a_failover_and_a_retry_is_none() -> None:
    begun = (RunStarted(1), AttemptStarted("s", 1, "a"), AttemptFailed("s", 1, failure()))
    again = (RetryScheduled("s", "a", 0.0, "again"), AttemptStarted("s", 2, "a"))
    moved = (RetryScheduled("s", "b", 0.0, "moved"), AttemptStarted("s", 2, "b"))
    assert after(*begun, *again).failovers == 0
    assert after(*begun, *moved).failovers == 1


def test_a_run_that_is_taken_over_keeps_its_start_even_if_that_was_at_zero() -> None:
    run = after(RunStarted(1), RunStarted(2))
    assert (run.started, run.epoch) == (0, 2)


def test_a_run_that_ends_keeps_when_and_why() -> None:
    failed = after(RunStarted(1), RunFailed("broken"))
    assert (failed.ended, failed.reason, failed.done) == (1, "broken", True)
    cancelled = after(RunStarted(1), CancelRequested("enough"), RunCancelled())
    assert (cancelled.state, cancelled.reason) == (RunState.CANCELLED, "enough")


def test_only_the_time_on_the_pool_costs_and_an_unknown_price_is_unknown() -> None:
    begun = (RunStarted(1), AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)))
    assert after(*begun[:2]).spent(5.0) == 0.0
    assert after(*begun).spent(5.0) == 3.0
    failed = (*begun, AttemptFailed("s", 1, failure()), RetryScheduled("s", "b", 0.0, "moved"))
    moved = after(*failed, AttemptStarted("s", 2, "b"), AttemptPlaced("s", 2, ("n",)))
    assert moved.spent(100.0) is None
    assert moved.known_cost(100.0) == 1.0
    assert moved.stages["s"].device_hours(100.0) == (1 + 94) / 3600
    assert after(RunStarted(1), StageReused("s", None, {}, "x")).spent(9.0) == 0.0


@pytest.mark.parametrize(
    ("events", "wrong", "said"),
    [
        ((), AttemptStarted("s", 1, "a"), r"'run' \(pending\) does not allow"),
        ((RunStarted(1),), RunStarted(1), "epoch 1 is not above 1"),
        ((RunStarted(1),), AttemptStarted("gone", 1, "a"), "does not allow"),
        ((RunStarted(1),), AttemptStarted("s", 2, "a"), "has 0 attempts"),
        ((RunStarted(1),), AttemptStarted("s", 1, "x"), r"may use \('a', 'b'\), not 'x'"),
        ((RunStarted(1),), AttemptPlaced("s", 1, ()), "not about the latest attempt"),
        ((RunStarted(1),), AttemptCancelled("s", 1), r"\(running\) does not allow"),
        ((RunStarted(1), AttemptStarted("s", 1, "a")), RunSucceeded(), "still has active"),
        ((RunStarted(1), RunFailed("x")), StageSkipped("s", "x"), r"\(failed\) does not allow"),
        ((RunStarted(1), CancelRequested("x")), AttemptStarted("s", 1, "a"), "cancelling"),
    ],
)
def test_what_does_not_fit_is_refused_by_a_line_that_says_why(
    events: tuple[Event, ...], wrong: Event, said: str
) -> None:
    with pytest.raises(TransitionError, match=said):
        apply(after(*events), wrong, 0.0)


def test_what_is_no_event_is_refused() -> None:
    with pytest.raises(TransitionError, match=r"'noise' at 0\.0 is not an event of run 'run'"):
        apply(begin(HEADER), "noise", 0.0)  # type: ignore[arg-type]
