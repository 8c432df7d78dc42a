"""What follows where nobody knows, or where it may be the user's own: here, elsewhere, a pause."""

from __future__ import annotations

import pytest

from orchestrator.core.failures.kinds import DISK_FULL, OTHER_VERSIONS, Action, FailureKind
from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.states import Event, RetryScheduled, StageFailed, StagePaused
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.policy import Limits, Recovery
from tests.build import plan, pool, stage
from tests.core.histories import after, answer, failed, scheduled

K = FailureKind


# --- what nobody knows, and what may be the user's ----------------------------------------------


def played(planned: Plan, *kinds: K, **changes: object) -> list[Event]:
    """Return what follows each of `kinds`, one after the other, until nothing does."""
    run, events = after(planned), list[Event]()
    for number, kind in enumerate(kinds, start=1):
        for event in failed(number, kind, run.stages["s"].pool, **changes):
            run = apply(run, event, 0.0)
        events.append(answer(run))
        if not isinstance(events[-1], RetryScheduled):
            break
        run = apply(run, events[-1], 0.0)
    return events


def test_what_nobody_knows_is_tried_here_then_on_other_nodes_then_elsewhere_then_paused() -> None:
    wide = plan(stage("s", limits=Limits(attempts=99)), pools=("a", "b"), a=pool("a", nodes=3))
    events = played(wide, *[K.UNKNOWN] * 9)
    told = [(e.action, e.pool, e.avoid) for e in events if isinstance(e, RetryScheduled)]
    assert told == [
        (Action.RETRY, "a", ()),
        (Action.OTHER_NODES, "a", ("n1",)),
        (Action.FALL_BACK, "b", ()),
        (Action.RETRY, "b", ()),
    ]
    assert events[-1] == StagePaused("s", "unknown: EI0002")


def test_on_one_node_what_nobody_knows_is_tried_once_more_and_then_paused() -> None:
    events = played(plan(stage("s")), *[K.UNKNOWN] * 9)
    assert [type(event) for event in events] == [RetryScheduled, StagePaused]


def test_an_error_of_the_users_code_stops_at_once_on_the_first_step() -> None:
    for step in (None, 0, 1):
        events = played(plan(stage("s")), K.USER_CODE, certain=False, step=step)
        assert events == [StageFailed("s", "user_code: EI0002")]


def test_later_it_stops_when_it_comes_again_at_the_same_step_elsewhere() -> None:
    two = plan(stage("s"), pools=("a", "b"))
    wide = plan(stage("s"), pools=("a", "b"), a=pool("a", nodes=2))
    tried = {}
    for name, planned in (("two", two), ("wide", wide)):
        *events, last = played(planned, *[K.USER_CODE] * 9, certain=False, step=7)
        tried[name] = [(e.action, e.pool) for e in events if isinstance(e, RetryScheduled)]
        assert last == StageFailed("s", "user_code: EI0002")
    assert tried == {
        "two": [(Action.RETRY, "a"), (Action.FALL_BACK, "b")],
        "wide": [(Action.OTHER_NODES, "a"), (Action.FALL_BACK, "b")],  # n1 again, as ours says
    }


def test_an_error_on_the_first_step_of_another_pool_alone_is_not() -> None:
    run = after(plan(stage("s"), pools=("a", "b")), *failed(1, K.INTERCONNECT, step=50))
    run = apply(run, scheduled(run), 0.0)
    for event in failed(2, K.USER_CODE, "b", certain=False, step=0):
        run = apply(run, event, 0.0)
    assert scheduled(run).action is Action.RETRY


def test_on_another_node_of_the_pool_is_elsewhere() -> None:
    run = after(plan(stage("s"), a=pool("a", nodes=2)))
    for number, node in enumerate(("n1", "n2"), start=1):
        for event in failed(number, K.USER_CODE, certain=False, step=7, node=node):
            run = apply(run, event, 0.0)
        if number == 1:
            run = apply(run, scheduled(run), 0.0)
    assert answer(run) == StageFailed("s", "user_code: EI0002")


def test_where_there_is_nowhere_else_the_same_step_is_no_proof_but_a_pause() -> None:
    events = played(plan(stage("s")), *[K.USER_CODE] * 9, certain=False, step=7)
    assert [type(event) for event in events] == [RetryScheduled, StagePaused]


def test_what_comes_again_otherwise_is_not_the_users() -> None:
    run = after(plan(stage("s")))
    for number in (1, 2):
        for event in failed(number, K.USER_CODE, certain=False, step=10 * number):
            run = apply(run, event, 0.0)
        if number == 1:
            run = apply(run, scheduled(run), 0.0)
    assert answer(run) == StagePaused("s", "user_code: EI0002")


def test_a_set_up_that_is_wrong_from_the_start_moves_no_work_to_another_maker() -> None:
    events = played(plan(stage("s"), pools=("a", "b")), K.SET_UP)
    assert events == [StageFailed("s", "set_up: EI0002")]


def test_other_versions_on_a_node_move_the_work_to_other_nodes_then_on_and_stop_without() -> None:
    wide = plan(stage("s"), pools=("a", "b"), a=pool("a", nodes=2))
    events = played(wide, *[K.SET_UP] * 9, sign=OTHER_VERSIONS)
    moves = [(e.action, e.pool, e.avoid) for e in events if isinstance(e, RetryScheduled)]
    assert moves == [(Action.OTHER_NODES, "a", ("n1",)), (Action.FALL_BACK, "b", ())]
    assert events[-1] == StageFailed("s", "set_up: EI0002")
    alone = played(plan(stage("s")), K.SET_UP, sign=OTHER_VERSIONS)
    assert alone == [StageFailed("s", "set_up: EI0002")]


def test_other_versions_on_a_node_that_nobody_knows_move_the_work_on() -> None:
    wide = plan(stage("s"), pools=("a", "b"), a=pool("a", nodes=2))
    events = played(wide, K.SET_UP, K.SET_UP, sign=OTHER_VERSIONS, node=None)
    assert [e.pool for e in events if isinstance(e, RetryScheduled)] == ["b"]


def test_a_full_disk_moves_the_work_to_other_nodes_and_then_to_another_pool() -> None:
    wide = plan(stage("s"), pools=("a", "b"), a=pool("a", nodes=2))
    events = played(wide, *[K.STORAGE] * 9, sign=DISK_FULL)
    moves = [(e.action, e.pool, e.avoid) for e in events if isinstance(e, RetryScheduled)]
    assert moves[0] == (Action.OTHER_NODES, "a", ("n1",))
    assert ("b", ()) in [(place, avoid) for _, place, avoid in moves]
    alone = played(plan(stage("s", limits=Limits(attempts=3))), *[K.STORAGE] * 9, sign=DISK_FULL)
    assert [type(event) for event in alone] == [RetryScheduled, RetryScheduled, StagePaused]


def test_a_storage_that_stays_away_pauses_the_stage() -> None:
    planned = plan(stage("s", limits=Limits(attempts=3)), pools=("a", "b"))
    *tries, last = played(planned, *[K.STORAGE] * 9)
    assert [e.pool for e in tries if isinstance(e, RetryScheduled)] == ["a", "a"]
    assert isinstance(last, StagePaused)


def test_workers_that_go_without_a_word_pause_the_stage_once_all_tries_are_used_up() -> None:
    events = played(plan(stage("s", limits=Limits(attempts=3))), *[K.WORKER_LOST] * 9)
    assert [type(event) for event in events] == [RetryScheduled, RetryScheduled, StagePaused]


@pytest.mark.parametrize("kind", [K.SOFTWARE, K.WORKER_LOST])
def test_a_guess_is_tried_as_what_nobody_knows(kind: K) -> None:
    wide = plan(stage("s"), pools=("a", "b"), a=pool("a", nodes=3))
    events = played(wide, *[kind] * 9, certain=False)
    told = [(e.action, e.pool) for e in events if isinstance(e, RetryScheduled)]
    assert told == [
        (Action.RETRY, "a"),
        (Action.OTHER_NODES, "a"),
        (Action.FALL_BACK, "b"),
        (Action.RETRY, "b"),
    ]
    assert events[-1] == StagePaused("s", f"{kind}: EI0002")


def test_what_is_certain_or_told_by_the_config_is_no_guess() -> None:
    told = stage("s", on_failure={K.SOFTWARE: Action.FALL_BACK})
    for one, certain in ((stage("s"), True), (told, False)):
        [event] = played(plan(one, pools=("a", "b")), K.SOFTWARE, certain=certain)
        assert isinstance(event, RetryScheduled)
        assert (event.action, event.pool) == (Action.FALL_BACK, "b")


def test_the_first_hang_is_tried_here_and_the_next_elsewhere() -> None:
    events = played(plan(stage("s"), pools=("a", "b")), K.HANG, K.HANG)
    assert [e.pool for e in events if isinstance(e, RetryScheduled)] == ["a", "b"]


def test_where_it_goes_round_the_first_pool_takes_over_again_after_the_last() -> None:
    round_and_round = stage("s", recovery=Recovery(round_robin=True))
    events = played(plan(round_and_round, pools=("a", "b")), *[K.INTERCONNECT] * 4)
    assert [e.pool for e in events if isinstance(e, RetryScheduled)] == ["b", "a", "b", "a"]
