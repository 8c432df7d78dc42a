"""An endpoint serves where its model was compared with what was trained, and nowhere else."""

from __future__ import annotations

import pytest

from orchestrator.controller.attempt_requests import AttemptDefaults, deployment
from orchestrator.controller.reuse import never_reuse
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.decide import Record, Start, decide
from orchestrator.core.runs.fold import apply, begin
from orchestrator.core.runs.limits import exhausted
from orchestrator.core.runs.recovery import Outlook, follow_up
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    RetryScheduled,
    RunStarted,
    StageFailed,
    StageMoved,
    StageReused,
)
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.stages import Endpoint, Stage
from tests.build import REF, failure, header, plan, stage

BENCH = AttemptDefaults(packages=(), code=(), storage="file:///s", reuse_key=never_reuse)


def serving(*after: str) -> Stage:
    endpoint = Endpoint(name="chat", engine="jobs.engines.Mine")
    facts = {"role": Role.SERVE, "job": None, "endpoint": endpoint, "inputs": {"model": "export"}}
    return stage("serve", *after, **facts)


def guard(name: str) -> Stage:
    return stage(name, role=Role.SERVE, inputs={"model": "export"})


def passed(name: str, *pools: str) -> tuple[Event, ...]:
    """A guard that fails on each pool but the last, where it passes."""
    told: list[Event] = []
    for number, pool in enumerate(pools, start=1):
        told.append(AttemptStarted(name, number, pool))
        if number < len(pools):
            told.append(AttemptFailed(name, number, failure()))
            told.append(RetryScheduled(name, pools[number], 0.0, "fall back"))
    number = len(pools)
    return *told, AttemptPlaced(name, number, ("n",)), AttemptSucceeded(name, number, REF, {})


def after(*events: Event, guards: tuple[str, ...] = ("parity",)) -> Run:
    stages = stage("export"), *map(guard, guards), serving(*guards)
    run = begin(header(plan(*stages, pools=("a", "b"))))
    for event in (RunStarted(1), StageReused("export", REF, {}, "x"), *events):
        run = apply(run, event, 0.0)
    return run


def only(run: Run, outlook: Outlook | None = None) -> object:
    (command,) = decide(run, 0.0, outlook or Outlook())
    return command.event if isinstance(command, Record) else command


def test_it_begins_where_the_comparison_was_passed() -> None:
    assert only(after(*passed("parity", "a"))) == Start("serve", 1, "a")
    run = after(*passed("parity", "a", "b"))
    moved = only(run)
    assert moved == StageMoved("serve", "b", "its model was compared on b: goes there")
    assert only(apply(run, moved, 0.0)) == Start("serve", 1, "b")


def test_two_comparisons_on_two_pools_leave_it_none() -> None:
    both = ("parity", "latency")
    run = after(*passed("parity", "a"), *passed("latency", "a", "b"), guards=both)
    said = "parity: its model was compared on a, b, which can't serve it"
    assert only(run) == StageFailed("serve", said)


@pytest.mark.parametrize(
    ("guards", "target"), [(("parity",), "a"), ((), "b")], ids=["guarded", "free"]
)
def test_it_falls_back_to_no_pool_where_nothing_was_compared(
    guards: tuple[str, ...], target: str
) -> None:
    events = [event for name in guards for event in passed(name, "a")]
    broke = AttemptFailed("serve", 1, failure(FailureKind.SERVING))
    run = after(*events, AttemptStarted("serve", 1, "a"), broke, guards=guards)
    one = run.stages["serve"]
    found = follow_up(run, one, 0.0, spent=exhausted(run, one, 0.0, broke=False))
    assert isinstance(found, RetryScheduled)
    assert found.pool == target


def test_a_pool_that_is_emptied_is_not_left_for_one_without_a_comparison() -> None:
    drained = Outlook(drained={"a": "firmware"})
    held = only(after(*passed("parity", "a")), drained)
    assert getattr(held, "reason", "") == "every pool is being emptied (firmware)"
    assert isinstance(only(after(guards=()), drained), StageMoved)


def test_who_moves_it_from_a_lost_pool_knows_where_to_as_that_compares_anew() -> None:
    run = after(*passed("parity", "a"))
    assert deployment(run, BENCH, Start("serve", 1, "a"), REF).fallbacks == ("b",)
