"""How a run goes on after its end: which stages begin again, and under which limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.errors import NotFoundError, PlanError
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.reopening import check_limits, halted, reopening
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptFailed,
    AttemptPlaced,
    AttemptSaved,
    AttemptStarted,
    CancelRequested,
    Event,
    RunCancelled,
    RunFailed,
    RunPaused,
    RunStarted,
    RunState,
    RunSucceeded,
    StageFailed,
    StagePaused,
    StageReused,
    StageSkipped,
    StageState,
)
from orchestrator.core.spec.plan import Plan
from orchestrator.core.spec.policy import Bounds, Limits
from tests.build import REF, failure, header, plan, pool, stage

CHAIN = plan(stage("s"), stage("t", "s"), stage("u", "t"))
DONE = (StageReused("s", REF, {}, "x"), StageReused("t", REF, {}, "x"))


def after(planned: Plan, *events: tuple[float, Event]) -> Run:
    run = apply(begin(header(planned)), RunStarted(1), 0.0)
    for at, event in events:
        run = apply(run, event, at)
    return run


def at_once(*events: Event) -> tuple[tuple[float, Event], ...]:
    return tuple((0.0, event) for event in events)


def test_every_stage_begins_again_that_did_not_succeed() -> None:
    lost = (DONE[0], StageFailed("t", "x"), StageSkipped("u", "x"), RunFailed("x"))
    run = after(CHAIN, *at_once(*lost))
    event = reopening(run)
    assert (event.stages, event.anew) == (("t", "u"), ())
    again = apply(run, event, 9.0)
    assert again.state is RunState.RUNNING
    assert {name: str(one.state) for name, one in again.stages.items()} == {
        "s": "succeeded",
        "t": "pending",
        "u": "pending",
    }
    assert (again.ended, again.reason) == (None, "")


def test_from_a_stage_on_all_begin_again_and_those_after_it_without_their_checkpoints() -> None:
    run = after(CHAIN, *at_once(*DONE, StageReused("u", None, {}, "x"), RunSucceeded()))
    event = reopening(run, since="t")
    assert (event.stages, event.anew) == (("t", "u"), ("u",))
    assert reopening(run, since="t", anew=True).anew == ("t", "u")
    begun = apply(run, event, 0.0).stages["u"]
    assert (begun.anew, begun.artifact, begun.adjust.before) == (True, None, 0)


def test_what_was_found_damaged_is_made_again_from_its_checkpoints() -> None:
    lost = (*DONE, StageFailed("u", "x"), RunFailed("x"))
    run = after(CHAIN, *at_once(*lost))
    event = reopening(run, damaged=("s",))
    assert (event.stages, event.anew) == (("s", "t", "u"), ("t", "u"))
    assert event.reason.endswith("; what 's' had made is damaged")
    assert reopening(run, since="t", damaged=("s",)).anew == ("u",)
    assert reopening(run, since="t", anew=True, damaged=("s",)).anew == ("t", "u")


def test_a_stage_that_is_not_there_is_told_with_those_that_are() -> None:
    run = after(CHAIN, *at_once(*DONE, StageReused("u", None, {}, "x"), RunSucceeded()))
    with pytest.raises(NotFoundError, match=r"no stage 'tt'; did you mean 't'\?"):
        reopening(run, since="tt")


def test_a_lost_run_has_stages_that_wait_for_somebody() -> None:
    wide = plan(stage("s"), stage("v"), stage("t", "s"))
    lost = after(wide, *at_once(AttemptStarted("v", 1, "a"), AttemptStarted("s", 1, "a")))
    assert not halted(lost)
    assert not halted(apply(lost, CancelRequested("by hand"), 1.0))
    broken = failure()
    for one in (StageFailed("s", "broken"), StagePaused("s", "broken")):
        stopped = apply(apply(lost, AttemptFailed("s", 1, broken), 1.0), one, 1.0)
        assert halted(stopped)
        assert reopening(stopped).stages == ("s",)
        assert not halted(apply(stopped, CancelRequested("by hand"), 1.0))
        again = apply(stopped, reopening(stopped), 2.0)
        assert again.stages["s"].state is StageState.PENDING
        assert again.stages["v"].state is StageState.RUNNING


def test_a_cancelled_run_goes_on_with_the_stage_that_was_ended() -> None:
    begun = (AttemptStarted("s", 1, "a"), CancelRequested("x"), AttemptCancelled("s", 1))
    run = after(plan(stage("s")), *at_once(*begun, RunCancelled()))
    again = apply(run, reopening(run), 0.0)
    assert again.stages["s"].state is StageState.PENDING
    assert again.stages["s"].forgiven == 1


def test_other_limits_hold_from_now_on_and_the_rest_stays() -> None:
    run = after(CHAIN, *at_once(StagePaused("s", "time"), RunPaused("x")))
    wide = replace(CHAIN, bounds=Bounds(cost=9.0))
    stages = [replace(one.stage, limits=Limits(timeout=60.0)) for one in wide.stages[:1]]
    limited = replace(wide, stages=(replace(wide.stages[0], stage=stages[0]), *wide.stages[1:]))
    event = reopening(run, limited=limited)
    assert event.limits == {"s": Limits(timeout=60.0)}
    again = apply(run, event, 0.0)
    assert again.stages["s"].planned.stage.limits.timeout == 60.0
    assert again.plan["s"].stage.limits.timeout == 60.0
    assert again.plan.bounds.cost == 9.0
    assert again.stages["t"].planned == run.stages["t"].planned


def test_a_run_that_would_pause_again_at_once_is_not_reopened() -> None:
    paid = pool("a", price_per_hour=3600.0)
    short = plan(stage("s", limits=Limits(timeout=10.0)), cost_limit=5.0, a=paid)
    run = after(
        short,
        (0.0, AttemptStarted("s", 1, "a")),
        (0.0, AttemptPlaced("s", 1, ("n",))),
        (11.0, AttemptFailed("s", 1, failure())),
        (11.0, StagePaused("s", "time")),
        (11.0, RunPaused("x")),
    )
    with pytest.raises(PlanError) as refused:
        check_limits(run, reopening(run), 1000.0)
    (problem,) = refused.value.problems
    assert problem.path == "pipeline.stages.s.limits.timeout"
    raised = replace(short, stages=(replace(short.stages[0], stage=stage("s")),))
    with pytest.raises(PlanError, match="cost_limit: the run cost more than its limit of"):
        check_limits(run, reopening(run, limited=raised), 1000.0)
    check_limits(run, reopening(run, limited=replace(raised, bounds=Bounds())), 1000.0)


def test_who_begins_anew_counts_its_checkpoints_anew_too() -> None:
    run = after(
        plan(stage("s", limits=Limits(attempts=2))),
        *at_once(AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",))),
        *at_once(AttemptSaved("s", 1, 90), AttemptFailed("s", 1, failure())),
        *at_once(StageFailed("s", "x"), RunFailed("x")),
    )
    run = apply(run, reopening(run, since="s", anew=True), 0.0)
    assert run.stages["s"].begins_anew
    again = (AttemptStarted("s", 2, "a"), AttemptPlaced("s", 2, ("n",)), AttemptSaved("s", 2, 10))
    for event in (RunStarted(2), *again):
        run = apply(run, event, 0.0)
    assert not run.stages["s"].begins_anew
    assert run.stages["s"].advanced(1)


def test_the_time_until_somebody_takes_a_lost_run_over_costs_nothing() -> None:
    paid = pool("a", price_per_hour=3600.0)
    run = after(
        plan(stage("s", limits=Limits(timeout=60.0)), a=paid),
        (0.0, AttemptStarted("s", 1, "a")),
        (0.0, AttemptPlaced("s", 1, ("n",))),
        (5.0, AttemptSaved("s", 1, 10)),
    )
    run = apply(run, RunStarted(2, seen=8.0), 100_000.0)
    run = apply(run, AttemptFailed("s", 1, failure()), 100_000.0)
    assert run.known_cost(100_000.0) == 8.0
    assert (run.stages["s"].seconds(100_000.0), run.seconds(100_000.0)) == (8.0, 8.0)
