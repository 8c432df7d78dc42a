"""What the figures of a stage and of a run may be."""

from __future__ import annotations

import math

import pytest

from orchestrator.core.spec.bounds import BOUNDS, MOST, problems_of_run, problems_of_stage
from orchestrator.core.spec.policy import Bounds, Gate, Limits, Recovery, Rollout, Watch
from orchestrator.core.spec.stages import Endpoint, Needs, OnPool, Scale
from tests.build import stage

NO_FIGURES = (math.nan, math.inf, -math.inf, -1.0)


@pytest.mark.parametrize("value", NO_FIGURES)
def test_all_figures_that_are_none_are_refused_at_once_each_with_its_path(value: float) -> None:
    whole: int = value  # type: ignore[assignment]  # what a program may pass all the same
    one = stage(
        "s",
        hours=value,
        needs=Needs(workers=whole, devices=whole, cpus=value, memory_gb=value),
        limits=Limits(
            attempts=whole,
            tries=whole,
            total=whole,
            timeout=value,
            grace=value,
            kill_after=value,
            pending=value,
            queued=value,
            cost=value,
            backoff=value,
        ),
        recovery=Recovery(checkpoints=whole, accumulate=whole, keep=whole),
        watch=Watch(hang=value, window=whole, deviations=value, patience=whole),
    )
    fields = [p.path.removeprefix("pipeline.stages.s.") for p in problems_of_stage(one)]
    assert fields == [
        *("needs.workers", "needs.devices", "needs.cpus", "needs.memory_gb"),
        *("limits.attempts", "limits.tries", "limits.total", "limits.timeout"),
        *("limits.grace", "limits.kill_after"),
        *("limits.pending", "limits.queued", "limits.cost", "limits.backoff", "hours"),
        *("recovery.checkpoints", "recovery.accumulate", "recovery.keep"),
        *("watch.hang", "watch.window", "watch.deviations", "watch.patience"),
    ]


@pytest.mark.parametrize("value", NO_FIGURES)
def test_limits_of_a_run_are_figures_too(value: float) -> None:
    bounds = Bounds(cost=value, time=value, attempts=value)  # type: ignore[arg-type]
    paths = [problem.path for problem in problems_of_run(bounds)]
    assert paths == ["cost_limit", "time_limit", "attempt_limit"]


def test_no_time_at_all_is_no_limit_but_no_money_is_one() -> None:
    nothing = stage("s", limits=Limits(timeout=0.0, cost=0.0))
    (problem,) = problems_of_stage(nothing)
    assert str(problem) == (
        "pipeline.stages.s.limits.timeout: 0.0 is too small; set 0.001 or more"
    )
    assert [p.path for p in problems_of_run(Bounds(cost=0.0, time=0.0))] == ["time_limit"]


def test_what_is_too_large_says_how_endless_is_written() -> None:
    (problem,) = problems_of_run(Bounds(time=math.inf))
    assert str(problem) == "time_limit: inf is too large; set 1e+15 or less, or null"
    assert not [*problems_of_run(Bounds(time=MOST))]


def test_a_figure_of_an_endpoint_is_held_to_the_table_of_the_config_too() -> None:
    rollout = Rollout(steps=(5, 200), hold=-1.0)
    chat = Endpoint(
        name="chat", engine="e", rollout=rollout, scale={"a": Scale(replicas=0)}, concurrency=0
    )
    serving = stage("s", job=None, endpoint=chat, recovery=Recovery(rate=2.0))
    paths = {p.path.removeprefix("pipeline.stages.s.") for p in problems_of_stage(serving)}
    assert paths == {
        "recovery.rate",
        "endpoint.rollout.steps.1",
        "endpoint.rollout.hold",
        "endpoint.scale.a.replicas",
        "endpoint.concurrency",
    }


@pytest.mark.parametrize("pattern", [name for name in BOUNDS if name.startswith("pipeline.")])
def test_every_bound_of_a_stage_is_that_of_a_field_that_there_is(pattern: str) -> None:
    value: object = stage(
        "s",
        gate=Gate(kind="count"),
        on={"a": OnPool(needs=Needs(), watch=Watch())},
        endpoint=Endpoint(name="chat", engine="e", scale={"a": Scale()}),
    )
    for name in pattern.split(".")[3:]:
        if name == "*":
            value = next(iter(value.values() if isinstance(value, dict) else value))  # type: ignore[call-overload]
        else:
            assert hasattr(value, name), f"{pattern}: no {name!r}"
            value = getattr(value, name)
