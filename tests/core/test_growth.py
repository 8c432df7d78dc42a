"""The work of planning grows with the stages, and not with their square."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from orchestrator.core.runs.forecast import forecasts
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.plan import make_plan
from orchestrator.core.spec.stages import Endpoint, Stage
from tests.build import bindings, fleet, pipeline, plan, stage
from tests.counting import lines_run

SOME = 60
DOUBLED = 2.2  # twice the work, and what doesn't grow at all


def chain(count: int) -> list[Stage]:
    """Return stages that each wait for the one before, and for one further back."""
    return [
        stage(f"s{n}", *(f"s{before}" for before in (n - 1, n - 7) if before >= 0))
        for n in range(count)
    ]


def guarded_endpoints(count: int) -> list[Stage]:
    """Return models, each made for an endpoint of its own that a comparison guards."""
    third = range(count // 3)
    models = [stage(f"m{n}", params={"format": "auto"}) for n in third]
    guards = [
        stage(f"g{n}", role=Role.SERVE, inputs={"model": f"m{n}"}, params={"engine": "auto"})
        for n in third
    ]
    served = [
        stage(
            f"e{n}",
            f"g{n}",
            role=Role.SERVE,
            job=None,
            inputs={"model": f"m{n}"},
            endpoint=Endpoint(name=f"e{n}", engine="jobs.engines.e"),
        )
        for n in third
    ]
    return [*models, *guards, *served]


def readers_of_one_model(count: int) -> list[Stage]:
    """Return one model and endpoints that all serve it."""
    _, _, served = guarded_endpoints(3)
    one = replace(served, inputs={"model": "model"}, after=())
    return [
        stage("model", params={"format": "auto"}),
        *(replace(one, name=f"e{n}") for n in range(count - 1)),
    ]


SHAPES = (chain, guarded_endpoints, readers_of_one_model)


@pytest.mark.parametrize("shape", SHAPES)
def test_planning_twice_the_stages_is_twice_the_work(
    shape: Callable[[int], Sequence[Stage]],
) -> None:
    def work(count: int) -> int:
        whole = pipeline(*shape(count))
        return lines_run(lambda: make_plan(whole, fleet(), bindings("a", "b")))

    assert work(2 * SOME) < DOUBLED * work(SOME)


@pytest.mark.parametrize("shape", SHAPES)
def test_telling_what_follows_a_failure_of_twice_the_stages_is_twice_the_work(
    shape: Callable[[int], Sequence[Stage]],
) -> None:
    def work(count: int) -> int:
        planned = plan(*shape(count), pools=("a", "b"))
        return lines_run(lambda: list(forecasts(planned)))

    assert work(2 * SOME) < DOUBLED * work(SOME)


def test_stages_that_differ_in_their_names_alone_are_told_of_together() -> None:
    def work(count: int) -> int:
        planned = plan(*(stage(f"s{n}") for n in range(count)))
        return lines_run(lambda: list(forecasts(planned)))

    assert work(20) < 3 * work(1)
