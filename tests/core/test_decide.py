"""What follows: when a stage starts, is retried, moves to another pool, or is given up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.failures.kinds import DEFAULT_ACTIONS, Action, FailureKind
from orchestrator.core.runs.decide import Cancel, Command, Expire, Leave, Record, Start, decide
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptSaved,
    AttemptStarted,
    AttemptSucceeded,
    AttemptWaits,
    CancelRequested,
    Event,
    LeaveRequested,
    RetryScheduled,
    RunCancelled,
    RunFailed,
    RunPaused,
    RunReopened,
    RunStarted,
    RunSucceeded,
    StageCancelled,
    StageFailed,
    StagePaused,
    StageReused,
    StageSkipped,
)
from orchestrator.core.spec.policy import Bounds, Limits
from orchestrator.core.spec.stages import Needs
from tests.build import REF, failure, header, plan, pool, stage
from tests.core.histories import after, failed

DAY = 86_400.0
PAID = pool("a", price_per_hour=3600.0)


def only(run: Run, now: float = 0.0) -> Command:
    (command,) = decide(run, now)
    return command


def event_of(run: Run, now: float = 0.0) -> Event:
    command = only(run, now)
    assert isinstance(command, Record)
    return command.event


# --- start ------------------------------------------------------------------------------------


def test_a_run_that_has_not_begun_or_is_over_waits_for_nothing() -> None:
    planned = plan(stage("s"))
    assert decide(begin(header(planned)), 0.0) == ()
    assert decide(after(planned, RunFailed("x")), 0.0) == ()


def test_stages_start_when_all_before_them_succeeded_in_the_order_of_the_plan() -> None:
    planned = plan(stage("s"), stage("t"), stage("u", "s", "t"))
    assert decide(after(planned), 0.0) == (Start("s", 1, "a"), Start("t", 1, "a"))
    half = after(planned, StageReused("s", REF, {}, "x"), AttemptStarted("t", 1, "a"))
    assert decide(half, 0.0) == ()
    whole = apply(half, AttemptSucceeded("t", 1, None), 1.0)
    assert only(whole, 1.0) == Start("u", 1, "a")


def test_a_stage_after_one_that_did_not_succeed_is_skipped_and_says_which() -> None:
    lost = after(plan(stage("s"), stage("t", "s"), stage("u", "t")), StageFailed("s", "broken"))
    assert event_of(lost) == StageSkipped("t", "stage 's' failed")
    again = apply(lost, event_of(lost), 0.0)
    assert event_of(again) == StageSkipped("u", "stage 't' skipped")


def test_a_run_succeeds_when_every_stage_did() -> None:
    assert event_of(after(plan(stage("s")), StageReused("s", None, {}, "x"))) == RunSucceeded()


def test_a_run_fails_with_the_stage_the_pool_and_the_reason() -> None:
    run = after(plan(stage("s")), *failed(1, FailureKind.USER_CODE))
    run = apply(run, event_of(run), 0.0)
    why = "stage 's' failed on pool 'a': user_code: EI0002"
    assert event_of(run) == RunFailed(why)


# --- after a failure --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FailureKind)
def test_each_kind_leads_to_what_its_row_says(kind: FailureKind) -> None:
    big = pool("a", nodes=2)
    event = event_of(after(plan(stage("s"), pools=("a", "b"), a=big), *failed(1, kind)))
    action = DEFAULT_ACTIONS[kind]
    if action is Action.STOP:
        assert event == StageFailed("s", f"{kind}: EI0002")
    elif action is Action.PAUSE:
        assert event == StagePaused("s", f"{kind}: EI0002")
    else:
        assert isinstance(event, RetryScheduled)
        here_first = action is Action.ESCALATE or kind is FailureKind.HANG
        assert event.action is (Action.RETRY if here_first else action)
        assert event.pool == ("b" if event.action is Action.FALL_BACK else "a")
        assert event.reason.startswith(f"{kind}: ")


def test_a_stage_may_have_an_action_of_its_own() -> None:
    own = stage("s", on_failure={FailureKind.INTERCONNECT: Action.RETRY})
    run = after(plan(own, pools=("a", "b")), *failed(1, FailureKind.INTERCONNECT))
    assert event_of(run) == RetryScheduled("s", "a", 1.0, "interconnect: again on a in 1 s")


def test_without_a_pool_left_the_stage_is_given_up() -> None:
    run = after(plan(stage("s")), *failed(1, FailureKind.UNSUPPORTED_OPERATOR))
    why = "unsupported_operator: EI0002 (no pool left to fall back to)"
    assert event_of(run) == StageFailed("s", why)


def test_without_a_pool_left_what_may_not_come_again_is_tried_here_again() -> None:
    run = after(plan(stage("s")), *failed(1, FailureKind.HANG))
    assert event_of(run) == RetryScheduled("s", "a", 1.0, "hang: again on a in 1 s")


def test_a_stage_falls_back_along_its_pools_and_never_goes_back() -> None:
    planned = plan(stage("s"), pools=("a", "b", "c"))
    link = FailureKind.INTERCONNECT
    moved = (*failed(1, link), RetryScheduled("s", "b", 0.0, "moved"))
    run = after(planned, *moved, *failed(2, link, "b"))
    reason = "interconnect: falls back from b to c"
    assert event_of(run) == RetryScheduled("s", "c", 0.0, reason, Action.FALL_BACK)


def test_the_last_attempt_says_that_it_was_the_last() -> None:
    run = after(plan(stage("s", limits=Limits(attempts=1))), *failed(1, FailureKind.NODE_LOST))
    why = "node_lost: EI0002 (attempt 1, the last)"
    assert event_of(run) == StageFailed("s", why)


def test_back_off_doubles_on_a_pool_ten_times_at_most_and_begins_anew_on_the_next() -> None:
    lost = FailureKind.WORKER_LOST
    run = after(
        plan(stage("s", limits=Limits(attempts=99, tries=99, backoff=2.0)), pools=("a", "b"))
    )
    waits = []
    for number in range(1, 14):
        for event in failed(number, lost):
            run = apply(run, event, 0.0)
        event = event_of(run)
        assert isinstance(event, RetryScheduled)
        waits.append(event.not_before)
        run = apply(run, event, 0.0)
    assert waits == [2.0 * 2**n for n in range(11)] + [2048.0, 2048.0]
    moved = (*failed(14, FailureKind.HANG), RetryScheduled("s", "b", 0.0, "moved"))
    for event in (*moved, *failed(15, lost, "b")):
        run = apply(run, event, 0.0)
    assert event_of(run) == RetryScheduled("s", "b", 2.0, "worker_lost: again on b in 2 s")


def test_back_off_begins_anew_after_an_attempt_that_saved_a_checkpoint() -> None:
    lost = FailureKind.WORKER_LOST
    run = after(plan(stage("s", limits=Limits(attempts=99, tries=99, backoff=2.0))))
    waits = []
    for number in range(1, 6):
        begun, *ended = failed(number, lost)
        saved = [AttemptSaved("s", number, 10)] if number == 3 else []
        for event in (begun, AttemptPlaced("s", number, ("n",)), *saved, *ended[-1:]):
            run = apply(run, event, 0.0)
        event = event_of(run)
        assert isinstance(event, RetryScheduled)
        waits.append(event.not_before)
        run = apply(run, event, 0.0)
    assert waits == [2.0, 4.0, 2.0, 2.0, 4.0]


def test_a_retry_waits_until_its_time() -> None:
    again = RetryScheduled("s", "a", 5.0, "again")
    run = after(plan(stage("s")), *failed(1, FailureKind.WORKER_LOST), again)
    assert decide(run, 4.9) == ()
    assert only(run, 5.0) == Start("s", 2, "a")


# --- limits -----------------------------------------------------------------------------------


def test_an_attempt_that_waits_too_long_for_its_place_expires() -> None:
    waiting = after(plan(stage("s", limits=Limits(pending=60.0))), AttemptStarted("s", 1, "a"))
    assert decide(waiting, 60.0) == ()
    command = only(waiting, 60.1)
    assert isinstance(command, Expire)
    assert command.failure.kind is FailureKind.PLACEMENT
    assert command.failure.evidence == "no place on pool 'a' within 60 s"


def test_who_stands_in_a_queue_waits_as_long_as_it_takes_unless_a_limit_says_otherwise() -> None:
    busy = (AttemptStarted("s", 1, "a"), AttemptWaits("s", 1, "others hold it", queued=True))
    assert decide(after(plan(stage("s", limits=Limits(pending=60.0))), *busy), DAY) == ()
    hasty = after(plan(stage("s", limits=Limits(queued=60.0))), *busy)
    assert decide(hasty, 60.0) == ()
    command = only(hasty, 60.1)
    assert isinstance(command, Expire)
    assert command.failure.evidence == "no place on pool 'a' within 60 s: others hold it"
    gone = apply(hasty, AttemptWaits("s", 1, "no live node"), 50.0)
    assert decide(gone, 70.0) == (), "the wait for nodes has just begun"


def test_a_placed_attempt_and_one_without_a_limit_may_wait_for_ever() -> None:
    for_ever = Limits(pending=None)
    assert decide(after(plan(stage("s", limits=for_ever)), AttemptStarted("s", 1, "a")), DAY) == ()
    placed = (AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)))
    assert decide(after(plan(stage("s")), *placed), DAY) == ()


@pytest.mark.parametrize("placed", [True, False])
def test_a_stage_expires_at_its_time_limit_waiting_or_not(*, placed: bool) -> None:
    begun: list[Event] = [AttemptStarted("s", 1, "a")]
    if placed:
        begun.append(AttemptPlaced("s", 1, ("n",)))
    run = after(plan(stage("s", limits=Limits(timeout=10.0, grace=0.0))), *begun)
    assert decide(run, 10.0) == ()
    command = only(run, 10.1)
    assert isinstance(command, Expire)
    assert command.failure.kind is FailureKind.TIME
    assert command.failure.evidence == "stage 's' ran over its time limit of 10.0 s"


def test_no_further_attempt_follows_when_the_time_is_over() -> None:
    one = stage("s", limits=Limits(timeout=10.0))
    late = "time: stage 's' ran over its time limit of 10.0 s"
    begun, ended = failed(1, FailureKind.WORKER_LOST)
    run = apply(after(plan(one), begun), ended, 10.1)
    assert event_of(run, 10.1) == StagePaused("s", late)
    waiting = apply(run, RetryScheduled("s", "a", 9.0, "again"), 10.1)
    assert event_of(waiting, 99.0) == StagePaused("s", late)


def test_the_time_between_attempts_counts_for_nothing() -> None:
    one = stage("s", limits=Limits(timeout=10.0))
    begun, ended = failed(1, FailureKind.WORKER_LOST)
    run = apply(after(plan(one), begun), ended, 5.0)
    run = apply(run, RetryScheduled("s", "a", DAY, "again"), 5.0)
    assert only(run, DAY) == Start("s", 2, "a")


def test_an_attempt_with_a_checkpoint_is_asked_to_leave_at_its_next_and_has_a_grace_for_that() -> (
    None
):
    one = stage("s", limits=Limits(timeout=10.0, grace=60.0))
    begun = (AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)), AttemptSaved("s", 1, 5))
    run = after(plan(one), *begun)
    over = "stage 's' ran over its time limit of 10.0 s"
    assert only(run, 10.1) == Leave("s", 1, over)
    run = apply(run, LeaveRequested("s", 1, over), 10.1)
    assert decide(run, 70.0) == ()
    left = apply(run, AttemptFailed("s", 1, failure(FailureKind.DRAINED)), 70.0)
    assert event_of(left, 70.0) == StagePaused("s", f"time: {over}")
    command = only(run, 70.2)
    assert isinstance(command, Expire)
    assert command.failure.kind is FailureKind.TIME


def test_one_that_has_saved_nothing_yet_has_less_of_a_grace() -> None:
    one = stage("s", limits=Limits(timeout=10.0))
    run = after(plan(one), AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)))
    asked = only(run, 11.0)
    assert isinstance(asked, Leave)
    run = apply(run, LeaveRequested("s", 1, asked.reason), 11.0)
    assert decide(run, 41.0) == ()
    assert isinstance(only(run, 41.1), Expire)


def test_a_stage_expires_at_its_cost_limit() -> None:
    one = stage("s", limits=Limits(cost=10.0, grace=0.0), needs=Needs(devices=2))
    placed = (AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)))
    run = after(plan(one, a=PAID), *placed)
    assert decide(run, 5.0) == ()
    command = only(run, 5.1)
    assert isinstance(command, Expire)
    assert command.failure.kind is FailureKind.BUDGET
    assert command.failure.evidence == "stage 's' cost more than its limit of $10.0"


def test_a_run_over_its_budget_expires_what_runs_and_starts_nothing() -> None:
    hard = Limits(grace=0.0)
    planned = plan(
        *(stage("s", limits=hard), stage("t"), stage("u", "s")), a=PAID, cost_limit=10.0
    )
    placed = (AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)))
    run = after(planned, *placed)
    assert decide(run, 10.0) == (Start("t", 1, "a"),)
    why = "the run cost more than its limit of $10.0"
    expire, record = decide(run, 10.1)
    assert isinstance(expire, Expire)
    assert expire.failure.evidence == why
    assert record == Record(StagePaused("t", f"budget: {why}"))


def test_a_run_pauses_once_nothing_of_it_can_go_on_before_somebody_looks() -> None:
    planned = plan(stage("s"), stage("t", "s"), stage("u", "t"), stage("v"))
    run = after(planned, StagePaused("s", "unknown: x"), AttemptStarted("v", 1, "a"))
    assert decide(run, 0.0) == (), "v still runs"
    run = apply(run, AttemptSucceeded("v", 1, None), 0.0)
    assert event_of(run) == RunPaused("stage 's' waits for you: unknown: x")
    paused = apply(run, event_of(run), 0.0)
    assert decide(paused, 0.0) == ()
    states = {name: str(one.state) for name, one in paused.stages.items()}
    assert states == {"s": "paused", "t": "pending", "u": "pending", "v": "succeeded"}
    reopened = apply(paused, RunReopened(reason="go on", stages=("s",)), 1.0)
    started = apply(reopened, RunStarted(2), 1.0)
    assert only(started, 1.0) == Start("s", 1, "a")


def test_a_run_of_which_a_stage_failed_beside_a_paused_one_has_failed() -> None:
    run = after(plan(stage("s"), stage("t")), StagePaused("s", "x"), StageFailed("t", "broken"))
    assert event_of(run) == RunFailed("stage 't' failed on pool 'a': broken")


def test_an_unknown_price_counts_nothing_towards_a_budget() -> None:
    placed = (AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",)))
    planned = replace(plan(stage("s")), bounds=Bounds(cost=0.0))  # as older runs may have it
    assert decide(after(planned, *placed), DAY) == ()


# --- cancel -----------------------------------------------------------------------------------


def test_a_cancelled_run_winds_down_stage_by_stage() -> None:
    planned = plan(stage("s"), stage("t"), stage("u"), stage("v", "s"))
    begun = (*failed(1, FailureKind.WORKER_LOST), AttemptStarted("t", 1, "a"))
    done = StageReused("u", None, {}, "x")
    run = after(planned, *begun, done, CancelRequested("enough"))
    commands = decide(run, 0.0)
    assert commands == (
        Record(StageCancelled("s")),
        Cancel("t", 1),
        Record(StageCancelled("v")),
    )


def test_a_cancelled_run_ends_when_nothing_of_it_runs() -> None:
    run = after(plan(stage("s")), CancelRequested("enough"))
    run = apply(run, event_of(run), 0.0)
    assert event_of(run) == RunCancelled()
