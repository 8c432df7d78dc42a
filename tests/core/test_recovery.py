"""What follows a failed attempt: again, elsewhere, otherwise, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.failures.kinds import DOES_NOT_FIT, Action, FailureKind
from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.recovery import Outlook
from orchestrator.core.runs.stage_history import counted, in_vain
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptSaved,
    AttemptStarted,
    Event,
    RetryScheduled,
    RunFailed,
    RunReopened,
    RunStarted,
    StageFailed,
)
from orchestrator.core.spec.policy import Adjust, Bounds, Limits, Recovery
from orchestrator.core.spec.stages import Needs
from tests.build import failure, plan, pool, stage
from tests.core.histories import after, answer, failed, scheduled

K = FailureKind


# --- a pool that can't -------------------------------------------------------------------------


def test_after_its_tries_on_a_pool_a_stage_falls_back_though_its_kind_would_be_retried() -> None:
    run = after(
        plan(stage("s", limits=Limits(attempts=9, tries=2)), pools=("a", "b")),
        *failed(1, K.WORKER_LOST),
    )
    first = scheduled(run)
    assert (first.pool, first.action) == ("a", Action.RETRY)
    for event in (first, *failed(2, K.WORKER_LOST)):
        run = apply(run, event, 0.0)
    second = scheduled(run)
    assert (second.pool, second.action) == ("b", Action.FALL_BACK)
    assert second.reason == "worker_lost: falls back from a to b"


def test_without_another_pool_it_goes_on_trying_until_its_attempts_are_used_up() -> None:
    patient = stage("s", limits=Limits(attempts=4, tries=1))
    run = after(plan(patient), *failed(1, K.WORKER_LOST))
    assert scheduled(run).action is Action.RETRY


def test_a_run_out_of_attempts_gives_the_stage_up() -> None:
    planned = replace(plan(stage("s"), pools=("a", "b")), bounds=Bounds(attempts=1))
    event = answer(after(planned, *failed(1, K.HANG)))
    assert event == StageFailed("s", "hang: EI0002 (the run has had its 1 attempts)")


# --- nodes -------------------------------------------------------------------------------------


def test_a_lost_node_is_avoided_where_the_pool_has_others() -> None:
    run = after(plan(stage("s"), pools=("a", "b"), a=pool("a", nodes=2)), *failed(1, K.NODE_LOST))
    event = scheduled(run)
    assert (event.pool, event.action, event.not_before) == ("a", Action.OTHER_NODES, 0.0)
    assert event.reason == "node_lost: again on other nodes of a than n1"
    assert event.avoid == ("n1",)


def test_a_loss_of_nobody_knows_which_node_is_tried_here_again() -> None:
    big = pool("a", nodes=2)
    event = scheduled(after(plan(stage("s"), a=big), *failed(1, K.NODE_LOST, node=None)))
    assert (event.avoid, event.reason) == ((), "node_lost: again on a in 1 s")


def test_without_another_node_it_falls_back_or_tries_the_same_ones_again() -> None:
    lost = failed(1, K.DEVICE_LOST)
    assert scheduled(after(plan(stage("s"), pools=("a", "b")), *lost)).pool == "b"
    again = scheduled(after(plan(stage("s")), *lost))
    assert (again.pool, again.action, again.avoid) == ("a", Action.RETRY, ())


def test_an_elastic_gang_goes_on_with_the_nodes_that_are_left() -> None:
    needs = Needs(workers=16, min_workers=4)
    two = pool("a", nodes=2)  # of eight devices each
    elastic = after(
        plan(stage("s", needs=needs), pools=("a", "b"), a=two), *failed(1, K.NODE_LOST)
    )
    assert scheduled(elastic).action is Action.OTHER_NODES
    rigid = stage("s", needs=replace(needs, min_workers=None))
    planned = plan(rigid, pools=("a", "b"), a=two, b=pool("b", nodes=2))
    assert scheduled(after(planned, *failed(1, K.NODE_LOST))).pool == "b"


# --- otherwise ---------------------------------------------------------------------------------


def test_out_of_memory_halves_the_micro_batches_each_time() -> None:
    patient = stage("s", limits=Limits(attempts=9, tries=9))
    run = after(plan(patient, pools=("a", "b")), *failed(1, K.OUT_OF_MEMORY))
    blind = after(plan(patient), *failed(1, K.OUT_OF_MEMORY, adjusts=False))
    assert scheduled(blind).action is Action.RETRY, "smaller ones mend only what looks for them"
    first = scheduled(run)
    assert (first.pool, first.action, first.adjust) == (
        *("a", Action.LOWER_BATCH),
        Adjust(accumulate=2),
    )
    for event in (first, *failed(2, K.OUT_OF_MEMORY)):
        run = apply(run, event, 0.0)
    assert scheduled(run).adjust == Adjust(accumulate=4)
    assert scheduled(run).reason.endswith("again on a with micro-batches of 1/4 of the size")


def test_a_row_that_does_not_fit_goes_to_a_pool_where_micro_batches_are_as_planned() -> None:
    patient = stage("s", limits=Limits(attempts=9, tries=9))
    run = after(plan(patient, pools=("a", "b")), *failed(1, K.OUT_OF_MEMORY))
    for event in (scheduled(run), *failed(2, K.OUT_OF_MEMORY, sign=DOES_NOT_FIT)):
        run = apply(run, event, 0.0)
    there = scheduled(run)
    assert (there.pool, there.action, there.adjust) == ("b", Action.FALL_BACK, Adjust())
    for event in (there, *failed(3, K.OUT_OF_MEMORY, "b", sign=DOES_NOT_FIT)):
        run = apply(run, event, 0.0)
    assert answer(run) == StageFailed("s", "out_of_memory: EI0002 (no pool left to fall back to)")


@pytest.mark.parametrize("kind", [K.INTERCONNECT, K.DRAINED])
def test_smaller_micro_batches_stay_behind_on_the_pool_that_needed_them(kind: K) -> None:
    patient = stage("s", limits=Limits(attempts=9, tries=9))
    run = after(plan(patient, pools=("a", "b")), *failed(1, K.OUT_OF_MEMORY))
    for event in (scheduled(run), *failed(2, K.WORKER_LOST)):
        run = apply(run, event, 0.0)
    assert scheduled(run).adjust == Adjust(accumulate=2)
    for event in (scheduled(run), *failed(3, kind)):
        run = apply(run, event, 0.0)
    assert (scheduled(run).pool, scheduled(run).adjust) == ("b", Adjust())


def diverged(*saved: int, back: int = 1) -> RetryScheduled:
    own = stage("s", recovery=Recovery(checkpoints=back, rate=0.5))
    events: list[Event] = [AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n1",))]
    events += [AttemptSaved("s", 1, step) for step in saved]
    events.append(AttemptFailed("s", 1, failure(K.NUMERICAL_DIVERGENCE)))
    return scheduled(after(plan(own, pools=("a", "b")), *events))


def test_a_divergence_goes_back_before_the_newest_checkpoints_at_a_lower_rate() -> None:
    assert diverged(10, 20, 30).adjust == Adjust(rate=0.5, before=30)
    assert diverged(10, 20, 30, back=2).adjust == Adjust(rate=0.5, before=20)
    assert diverged(10, back=5).adjust == Adjust(rate=0.5, before=10)
    assert diverged().adjust == Adjust(rate=0.5)
    there = "from the checkpoint of step 20, learning rate x 0.5"
    assert diverged(10, 20, 30).reason.endswith(there)
    assert diverged().reason.endswith("again on a from the beginning, learning rate x 0.5")


def test_a_roll_back_is_the_matter_of_one_attempt_the_lower_rate_stays() -> None:
    run = after(plan(stage("s", limits=Limits(attempts=9, tries=9)), pools=("a", "b")))
    events = (
        *(AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n1",)), AttemptSaved("s", 1, 10)),
        AttemptFailed("s", 1, failure(K.NUMERICAL_DIVERGENCE)),
    )
    for event in events:
        run = apply(run, event, 0.0)
    run = apply(run, scheduled(run), 0.0)
    assert run.stages["s"].adjust == Adjust(rate=0.5, before=10)
    for event in failed(2, K.WORKER_LOST):
        run = apply(run, event, 0.0)
    assert scheduled(run).adjust == Adjust(rate=0.5)


def test_a_divergence_that_falls_back_leaves_the_suspect_checkpoint_behind_too() -> None:
    run = after(plan(stage("s", limits=Limits(tries=1)), pools=("a", "b")))
    events = (
        *(AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n1",)), AttemptSaved("s", 1, 10)),
        AttemptFailed("s", 1, failure(K.NUMERICAL_DIVERGENCE)),
    )
    for event in events:
        run = apply(run, event, 0.0)
    event = scheduled(run)
    assert (event.pool, event.adjust) == ("b", Adjust(rate=0.5, before=10))


# --- emptied pools, lost controllers -----------------------------------------------------------


def test_from_an_emptied_pool_a_stage_may_go_to_any_other() -> None:
    run = after(
        plan(stage("s"), pools=("a", "b", "c")),
        *failed(1, K.HANG),
        RetryScheduled("s", "b", 0.0, "moved"),
        *failed(2, K.DRAINED, "b"),
    )
    assert scheduled(run, Outlook(drained={"b": "x", "c": "x"})).pool == "a"
    assert scheduled(run, Outlook(drained={"b": "x"})).pool == "c"


def test_when_every_pool_is_emptied_the_stage_waits_where_it_is() -> None:
    run = after(plan(stage("s"), pools=("a", "b")), *failed(1, K.DRAINED))
    event = scheduled(run, Outlook(drained={"a": "x", "b": "x"}))
    assert (event.pool, event.action, event.not_before) == ("a", Action.RETRY, 0.0)


def test_a_fall_back_passes_over_an_emptied_pool() -> None:
    run = after(plan(stage("s"), pools=("a", "b", "c")), *failed(1, K.INTERCONNECT))
    assert scheduled(run, Outlook(drained={"b": "x"})).pool == "c"
    assert scheduled(run, Outlook(drained={"b": "x", "c": "x"})).pool == "b"


@pytest.mark.parametrize("kind", [K.DRAINED, K.CONTROLLER_LOST])
def test_what_came_from_outside_uses_no_attempt_up(kind: K) -> None:
    run = after(plan(stage("s", limits=Limits(attempts=1)), pools=("a", "b")), *failed(1, kind))
    assert counted(run.stages["s"]) == 0
    assert scheduled(run).not_before == 0.0


def test_a_lost_controller_leaves_the_stage_on_its_pool() -> None:
    tried = stage("s", limits=Limits(tries=1))
    run = after(plan(tried, pools=("a", "b")), *failed(1, K.CONTROLLER_LOST))
    assert scheduled(run).pool == "a"


# --- failures in vain ---------------------------------------------------------------------------


def test_a_training_that_comes_further_between_its_failures_never_runs_out_of_them() -> None:
    planned = plan(stage("s", limits=Limits(attempts=2, tries=2)), pools=("a", "b"))
    run = after(planned)
    for number in range(1, 30):
        begun, ended = failed(number, K.WORKER_LOST)
        there = AttemptPlaced("s", number, ("n1",))
        for event in (begun, there, AttemptSaved("s", number, 10 * number), ended):
            run = apply(run, event, 0.0)
        event = scheduled(run)
        assert (event.pool, event.not_before) == ("a", 1.0)
        run = apply(run, event, 0.0)
    assert len(in_vain(run.stages["s"])) == 1


def test_a_checkpoint_of_a_step_that_was_saved_before_is_no_progress() -> None:
    run = after(plan(stage("s", limits=Limits(attempts=2))))
    for number in (1, 2):
        begun, ended = failed(number, K.NODE_LOST)
        there = AttemptPlaced("s", number, ("n1",))
        for event in (begun, there, AttemptSaved("s", number, 10), ended):
            run = apply(run, event, 0.0)
        if number == 1:
            run = apply(run, scheduled(run), 0.0)
    assert isinstance(answer(run), StageFailed)


def test_a_budget_of_all_attempts_bounds_those_that_bring_progress_too() -> None:
    run = after(plan(stage("s", limits=Limits(total=1))), *failed(1, K.NODE_LOST))
    why = "node_lost: EI0002 (the stage has had its 1 attempts)"
    assert answer(run) == StageFailed("s", why)


def test_after_somebody_had_it_go_on_the_attempts_count_anew() -> None:
    run = after(plan(stage("s", limits=Limits(attempts=1))), *failed(1, K.WORKER_LOST))
    reopened = RunReopened(reason="y", stages=("s",))
    for event in (answer(run), RunFailed("x"), reopened, RunStarted(2)):
        run = apply(run, event, 0.0)
    assert counted(run.stages["s"]) == 0
    for event in failed(2, K.WORKER_LOST):
        run = apply(run, event, 0.0)
    assert counted(run.stages["s"]) == 1


# --- what can be placed -------------------------------------------------------------------------


@given(
    nodes=st.integers(1, 3),
    workers=st.integers(1, 12),
    history=st.lists(
        st.tuples(st.sampled_from(K), st.sampled_from(["n1", "n2", "n3", None]), st.booleans()),
        min_size=1,
        max_size=8,
    ),
)
def test_every_answer_can_be_placed_on_the_fleet_that_it_was_made_for(
    nodes: int, workers: int, history: list[tuple[K, str | None, bool]]
) -> None:
    big = pool("a", nodes=nodes, devices_per_node=12)
    one = stage("s", needs=Needs(workers=workers), limits=Limits(attempts=99, tries=3))
    planned = plan(one, pools=("a", "b"), a=big, b=pool("b", nodes=2, devices_per_node=12))
    run = after(planned)
    for number, (kind, node, certain) in enumerate(history, start=1):
        where = run.stages["s"].pool
        for event in failed(number, kind, where, node=node, certain=certain):
            run = apply(run, event, 0.0)
        event = answer(run)
        if not isinstance(event, RetryScheduled):
            return
        found = run.plan.pools[event.pool]
        left = (found.nodes - len(event.avoid)) * found.devices_per_node
        assert left >= workers, event
        run = apply(run, event, 0.0)


@pytest.mark.parametrize("drained", [{}, {"a": "firmware"}])
def test_what_is_not_what_was_trained_is_tried_nowhere_again(drained: dict[str, str]) -> None:
    run = after(plan(stage("s"), pools=("a", "b")), *failed(1, K.PARITY, evidence="kl_mean is 3"))
    found = answer(run, Outlook(drained=drained))
    assert found == StageFailed("s", "parity: kl_mean is 3")


def test_from_a_drained_node_a_stage_goes_to_others_of_its_pool_where_they_hold_it() -> None:
    work = stage("s", needs=Needs(workers=8))
    nodes = {"a": {"n1": "repair"}}
    two = after(plan(work, pools=("a", "b"), a=pool("a", nodes=2)), *failed(1, K.DRAINED))
    event = scheduled(two, Outlook(drained_nodes=nodes))
    assert (event.pool, event.action, event.not_before) == ("a", Action.RETRY, 0.0)
    one = after(plan(work, pools=("a", "b")), *failed(1, K.DRAINED))
    assert scheduled(one, Outlook(drained_nodes=nodes)).pool == "b"
    assert scheduled(two, Outlook(drained_nodes=nodes, drained={"a": "x"})).pool == "b"


def test_where_all_other_nodes_are_drained_a_stage_goes_to_the_next_pool() -> None:
    work = stage("s", needs=Needs(workers=8))
    broken = failed(1, K.DEVICE_LOST, node="n1")
    run = after(plan(work, pools=("a", "b"), a=pool("a", nodes=2)), *broken)
    assert (scheduled(run).pool, scheduled(run).avoid) == ("a", ("n1",))
    assert scheduled(run, Outlook(drained_nodes={"a": {"n2": "repair"}})).pool == "b"
    assert scheduled(run, Outlook(drained_nodes={"a": {"n1": "repair"}})).pool == "a"
    alone = after(plan(work, a=pool("a", nodes=2)), *broken)
    assert scheduled(alone, Outlook(drained_nodes={"a": {"n2": "repair"}})).pool == "a"
