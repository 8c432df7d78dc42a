"""The published costs of DeepSeek-V3 and R1 come out of a plan."""

from __future__ import annotations

import pytest

from orchestrator.adapters import hydra_config
from orchestrator.core.spec.plan import make_plan

# stage: H800 GPU-hours in thousands, and thousands of dollars at $2 an hour, as published.
R1 = {"r1-zero": (101, 202), "sft-data": (5, 10), "r1": (41, 82)}
V3 = {"pretraining": (2664, 5328), "context-extension": (119, 238), "post-training": (5, 10)}


@pytest.mark.parametrize(
    ("experiment", "published", "total"),
    [("r1_costs", R1, (147, 294)), ("v3_costs", V3, (2788, 5576))],
)
def test_a_plan_reproduces_the_published_table(
    experiment: str, published: dict[str, tuple[int, int]], total: tuple[int, int]
) -> None:
    settings = hydra_config.compose([f"experiment={experiment}"])
    plan = make_plan(settings.pipeline, settings.fleet, settings.bindings)
    hours = {planned.stage.name: planned.device_hours or 0.0 for planned in plan.stages}
    assert {name: round(spent / 1000) for name, spent in hours.items()} == {
        name: thousands for name, (thousands, _) in published.items()
    }
    assert round(sum(hours.values()) / 1000) == total[0]
    for name, (_, dollars) in published.items():
        # The table multiplies hours that are rounded to thousands: half of one, at $2, is $1K.
        assert plan[name].cost == pytest.approx(dollars * 1000, abs=1000)
        assert plan[name].cost == hours[name] * 2
    assert plan.cost == pytest.approx(total[1] * 1000, abs=1000)


def test_r1_zero_ran_on_64_nodes_of_8_for_198_hours() -> None:
    settings = hydra_config.compose(["experiment=r1_costs"])
    plan = make_plan(settings.pipeline, settings.fleet, settings.bindings)
    assert plan["r1-zero"].devices == 64 * 8
    assert plan["r1-zero"].device_hours == 101_376
