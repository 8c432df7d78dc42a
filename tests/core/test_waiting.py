"""Why a stage that could start does not: a gate, an emptied pool, others before it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.failures.kinds import Action, FailureKind
from orchestrator.core.runs.decide import (
    Command,
    Expire,
    Leave,
    Record,
    Start,
    at_gate,
    decide,
    standby,
    wanting,
)
from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.recovery import QUIET, BetterPlace, Outlook
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    AttemptWaits,
    GateOpened,
    GateReached,
    LeaveRequested,
    RetryScheduled,
    RunStarted,
    StageFailed,
    StageHeld,
    StageMoved,
)
from orchestrator.core.spec.policy import Bounds, Gate, Limits, Recovery
from orchestrator.core.spec.stages import Needs
from tests.build import failure, plan, stage
from tests.core.histories import after

LABELS = Gate(kind="file", target="labels/*.csv", deadline=60.0)
PLACED = (AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n1",)))


def only(run: Run, now: float = 0.0, **outlook: dict[str, str]) -> Command:
    (command,) = decide(run, now, Outlook(**outlook))
    return command


# --- gates --------------------------------------------------------------------------------------


def test_a_stage_comes_to_its_gate_when_those_before_it_are_done_and_waits_there() -> None:
    run = after(plan(stage("s", gate=LABELS)))
    reached = GateReached("s", "waits for file 'labels/*.csv'")
    assert only(run) == Record(reached)
    run = apply(run, reached, 5.0)
    assert decide(run, 6.0) == ()
    assert [one.name for one in at_gate(run)] == ["s"]
    assert run.stages["s"].hold_reason == "waits for file 'labels/*.csv'"


def test_an_open_gate_lets_the_stage_start() -> None:
    run = after(plan(stage("s", gate=LABELS)), GateReached("s", "labels"))
    opened = GateOpened("s", "labels/a.csv is there")
    assert only(run, opened={"s": "labels/a.csv is there"}) == Record(opened)
    run = apply(run, opened, 1.0)
    assert at_gate(run) == ()
    assert only(run, 1.0) == Start("s", 1, "a")


def at_deadline(gate: Gate) -> tuple[Command, ...]:
    run = after(plan(stage("s", gate=gate)), GateReached("s", "labels"), at=10.0)
    assert decide(run, 70.0) == ()
    return decide(run, 71.0)


def test_at_the_deadline_the_stage_stops_or_goes_on_or_waits_as_its_gate_says() -> None:
    late = "file 'labels/*.csv' did not come within 60 s"
    assert at_deadline(LABELS) == (Record(StageFailed("s", f"data: {late}")),)
    going = Gate(kind="file", target="labels/*.csv", deadline=60.0, then="go_on")
    assert at_deadline(going) == (Record(GateOpened("s", f"{late}; goes on with what is there")),)
    patient = Gate(kind="file", target="labels/*.csv", deadline=60.0, then="wait")
    assert at_deadline(patient) == ()


# --- emptied pools ------------------------------------------------------------------------------


def test_nothing_starts_on_an_emptied_pool_it_goes_to_the_next_one() -> None:
    run = after(plan(stage("s"), pools=("a", "b")))
    moved = StageMoved("s", "b", "pool 'a' is being emptied (repair): goes to 'b'")
    assert only(run, drained={"a": "repair"}) == Record(moved)
    run = apply(run, moved, 0.0)
    assert only(run, drained={"a": "repair"}) == Start("s", 1, "b")


def test_where_every_pool_is_emptied_a_stage_is_held_and_says_so_once() -> None:
    run = after(plan(stage("s")))
    held = StageHeld("s", "every pool is being emptied (repair)")
    assert only(run, drained={"a": "repair"}) == Record(held)
    run = apply(run, held, 0.0)
    assert decide(run, 0.0, Outlook(drained={"a": "repair"})) == ()
    assert only(run) == Start("s", 1, "a")


def test_an_attempt_on_an_emptied_pool_is_asked_to_leave_once() -> None:
    run = after(plan(stage("s"), pools=("a", "b")), *PLACED)
    assert only(run, drained={"a": "repair"}) == Leave("s", 1, "repair")
    run = apply(run, LeaveRequested("s", 1, "repair"), 0.0)
    assert decide(run, 0.0, Outlook(drained={"a": "repair"})) == ()
    assert run.stages["s"].attempts[-1].leaving == "repair"


# --- queues -------------------------------------------------------------------------------------


def test_a_stage_behind_others_is_held_until_it_is_its_turn() -> None:
    run = after(plan(stage("s")))
    behind = {"s": "waits for pool 'a' behind other/t (priority 5)"}
    held = StageHeld("s", behind["s"])
    assert only(run, behind=behind) == Record(held)
    assert decide(apply(run, held, 0.0), 0.0, Outlook(behind=behind)) == ()


def test_a_stage_that_is_held_for_too_long_goes_to_the_next_pool_or_gives_up() -> None:
    hasty = stage("s", limits=Limits(queued=60.0))
    behind = Outlook(behind={"s": "waits for pool 'a' behind other/t (priority 5)"})
    run = after(plan(hasty, pools=("a", "b")), StageHeld("s", behind.behind["s"]), at=10.0)
    assert decide(run, 70.0, behind) == ()
    (moved,) = decide(run, 71.0, behind)
    why = "no place on pool 'a' within 60 s: waits for pool 'a' behind other/t (priority 5)"
    assert moved == Record(StageMoved("s", "b", f"{why}: goes to 'b'"))
    assert isinstance(moved, Record)
    run = apply(run, moved.event, 71.0)
    assert only(run, 71.0) == Start("s", 1, "b")
    alone = after(plan(hasty), StageHeld("s", behind.behind["s"]), at=10.0)
    (failed,) = decide(alone, 71.0, behind)
    assert failed == Record(StageFailed("s", f"placement: {why} (no pool left)"))


def test_what_a_stage_waits_for_is_told_while_it_waits() -> None:
    run = after(plan(stage("s")), StageHeld("s", "others first"))
    assert run.stages["s"].waits_for == "others first"
    run = apply(run, AttemptStarted("s", 1, "a"), 0.0)
    run = apply(run, AttemptWaits("s", 1, "busy"), 0.0)
    assert run.stages["s"].waits_for == "busy"
    run = apply(run, AttemptPlaced("s", 1, ("n1",)), 0.0)
    assert run.stages["s"].waits_for == ""


def test_those_want_a_place_that_could_start_or_wait_for_one_with_chips() -> None:
    host = Needs(devices=0)
    planned = plan(*(stage("s"), stage("t", needs=host), stage("u", "s"), stage("v", gate=LABELS)))
    run = after(planned)
    assert [one.name for one in wanting(run, 0.0)] == ["s"]
    run = apply(run, AttemptStarted("s", 1, "a"), 0.0)
    assert [one.name for one in wanting(run, 0.0)] == ["s"]
    run = apply(run, AttemptWaits("s", 1, "busy"), 0.0)
    assert run.stages["s"].attempts[-1].waits == "busy"
    run = apply(run, AttemptPlaced("s", 1, ("n1",)), 0.0)
    assert wanting(run, 0.0) == ()
    assert run.stages["s"].attempts[-1].waits == ""


# --- other controllers, other limits ------------------------------------------------------------


def test_an_attempt_of_a_lost_controller_is_ended_by_the_next_one() -> None:
    run = apply(after(plan(stage("s")), *PLACED), RunStarted(2), 0.0)
    command = only(run)
    assert isinstance(command, Expire)
    assert command.failure.kind is FailureKind.CONTROLLER_LOST
    assert "epoch 1" in command.failure.evidence


def test_a_run_over_its_time_limit_ends_what_runs() -> None:
    hard = stage("s", limits=Limits(grace=0.0))
    run = after(replace(plan(hard), bounds=Bounds(time=10.0)), *PLACED)
    assert decide(run, 10.0) == ()
    command = only(run, 10.5)
    assert isinstance(command, Expire)
    assert command.failure.evidence == "the run took longer than its limit of 10.0 s"


def test_a_gang_stands_by_on_the_next_pool_while_one_runs() -> None:
    careful = stage("s", recovery=Recovery(standby=True))
    run = after(plan(careful, stage("t"), pools=("a", "b")))
    assert list(standby(run)) == []
    run = after(plan(careful, stage("t"), pools=("a", "b")), *PLACED)
    assert list(standby(run)) == [("s", Start("s", 2, "b"))]


def test_an_attempt_on_a_drained_node_is_asked_to_leave() -> None:
    run = after(plan(stage("s"), pools=("a", "b")), *PLACED)
    here, elsewhere = {"a": {"n1": "repair"}}, {"a": {"n9": "repair"}, "b": {"n1": "repair"}}
    assert only(run, drained_nodes=here) == Leave("s", 1, "node 'n1': repair")
    assert decide(run, 0.0, Outlook(drained_nodes=elsewhere)) == ()
    run = apply(run, LeaveRequested("s", 1, "repair"), 0.0)
    assert decide(run, 0.0, Outlook(drained_nodes=here)) == ()


def test_a_gang_with_room_for_the_rest_of_it_is_asked_to_leave_once_and_comes_back() -> None:
    gang = stage("s", needs=Needs(workers=4, min_workers=1))
    run = after(plan(gang, pools=("a", "b")), *PLACED)
    room = {"s": BetterPlace(attempt=1, pool="a", reason="room")}
    assert only(run, better=room) == Leave("s", 1, "room", goes_to="a")
    emptied = Outlook(better=room, drained={"a": "repair"})
    assert decide(run, 0.0, emptied) == (Leave("s", 1, "repair"),)
    asked = apply(run, Leave("s", 1, "room", goes_to="a").event, 0.0)
    assert decide(asked, 0.0, Outlook(better=room)) == ()
    earlier = {"s": replace(room["s"], attempt=0)}
    assert decide(run, 0.0, Outlook(better=earlier)) == (), "it was seen for another attempt"
    left = apply(asked, AttemptFailed("s", 1, failure(FailureKind.DRAINED)), 1.0)
    (record,) = decide(left, 1.0)
    assert isinstance(record, Record)
    assert isinstance(record.event, RetryScheduled)
    assert (record.event.pool, record.event.not_before) == ("a", 1.0)
    (record,) = decide(left, 1.0, Outlook(drained={"a": "repair"}))
    assert isinstance(record, Record)
    assert isinstance(record.event, RetryScheduled)
    assert record.event.pool == "b"


def test_a_stage_goes_back_to_the_pool_that_it_prefers_and_not_to_one_that_is_emptied() -> None:
    moved = (
        AttemptFailed("s", 1, failure(FailureKind.NODE_LOST)),
        RetryScheduled("s", "b", 0.0, ""),
    )
    on_b = (AttemptStarted("s", 2, "b"), AttemptPlaced("s", 2, ("m1",)))
    run = after(plan(stage("s"), pools=("a", "b", "c")), *PLACED, *moved, *on_b)
    room = {"s": BetterPlace(attempt=2, pool="a", reason="room")}
    leave = only(run, better=room)
    assert leave == Leave("s", 2, "room", goes_to="a")
    left = AttemptFailed("s", 2, failure(FailureKind.DRAINED))
    run = apply(apply(run, leave.event, 1.0), left, 2.0)
    back = retry(run)
    assert (back.pool, back.action, back.not_before) == ("a", Action.FALL_BACK, 2.0)
    assert back.reason == "drained: goes back from b to a"
    assert retry(run, Outlook(drained={"a": "repair"})).pool == "b"
    assert retry(run, Outlook(drained={"a": "repair", "b": "repair"})).pool == "c"


def test_a_stage_that_breaks_while_it_is_asked_to_go_back_is_decided_as_ever() -> None:
    run = after(plan(stage("s"), pools=("a", "b")), *PLACED, Leave("s", 1, "x", goes_to="a").event)
    broken = apply(run, AttemptFailed("s", 1, failure(FailureKind.SET_UP)), 1.0)
    (record,) = decide(broken, 1.0)
    assert isinstance(record, Record)
    assert not isinstance(record.event, RetryScheduled)


def retry(run: Run, outlook: Outlook = QUIET) -> RetryScheduled:
    (record,) = decide(run, 2.0, outlook)
    assert isinstance(record, Record)
    assert isinstance(record.event, RetryScheduled)
    return record.event
