"""Plans: the order of the stages, their pools, formats and costs."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.errors import PlanError
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.plan import make_plan
from orchestrator.core.spec.policy import Limits
from orchestrator.core.spec.stages import Endpoint, Needs, Pipeline, Scale
from orchestrator.core.trust.qualification import Rules, vet
from tests.build import accelerator, bindings, fleet, pipeline, plan, pool, stage

NAMES = tuple("abcdefgh")


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Draw any directed graph: stage -> stages before it."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    before = st.lists(st.sampled_from(names), max_size=3, unique=True)
    return {name: draw(before) for name in names}


@st.composite
def acyclic_graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    """Draw a graph without a cycle, written in any order."""
    names = draw(st.permutations(NAMES))
    edges = {
        name: draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        for index, name in enumerate(names)
    }
    return {name: edges[name] for name in draw(st.permutations(NAMES))}


def as_pipeline(graph: dict[str, list[str]]) -> Pipeline:
    return pipeline(*(stage(name, *before) for name, before in graph.items()))


def ends(graph: dict[str, list[str]]) -> bool:
    """Whether taking away what waits for nothing empties the graph."""
    left = {name: set(before) for name, before in graph.items()}
    while free := {name for name, before in left.items() if not before & set(left)}:
        left = {name: before for name, before in left.items() if name not in free}
    return not left


@given(graph=acyclic_graphs())
def test_an_acyclic_graph_plans_every_stage_once_and_after_those_before_it(
    graph: dict[str, list[str]],
) -> None:
    planned = make_plan(as_pipeline(graph), fleet(), bindings())
    order = [one.stage.name for one in planned.stages]
    assert sorted(order) == sorted(graph)
    assert all(order.index(up) < order.index(name) for name in graph for up in graph[name])


@given(graph=graphs())
def test_a_graph_is_planned_or_refused_by_a_cycle_that_is_there(
    graph: dict[str, list[str]],
) -> None:
    try:
        make_plan(as_pipeline(graph), fleet(), bindings())
    except PlanError as error:
        (problem,) = error.problems
        path = problem.what.removeprefix("the stages form a cycle: ").split(" -> ")
        assert path[0] == path[-1]
        assert all(up in graph[down] for up, down in pairwise(path))
        assert not ends(graph)
    else:
        assert ends(graph)


def test_ties_keep_the_order_in_which_the_user_wrote_the_stages() -> None:
    planned = plan(stage("z"), stage("last", "z", "m"), stage("m"), stage("a"))
    assert [one.stage.name for one in planned.stages] == ["z", "m", "a", "last"]


def test_a_plan_holds_the_pools_that_its_stages_may_use_and_no_other() -> None:
    planned = plan(stage("s"), pools=("b", "a", "b"))
    assert planned["s"].pools == ("b", "a")
    assert sorted(planned.pools) == ["a", "b"]


def test_a_plan_finds_a_stage_by_its_name() -> None:
    planned = plan(stage("s"), stage("t"))
    assert planned["t"].stage.name == "t"
    with pytest.raises(KeyError, match="gone"):
        planned["gone"]


def test_an_endpoint_gets_the_first_format_that_each_pool_serves() -> None:
    endpoint = Endpoint(name="chat", engine="jobs.engines.e", formats=("fp8", "bf16", "int8"))
    one = stage("s", job=None, role=Role.SERVE, endpoint=endpoint, inputs={"model": "t"})
    chips = {
        "a": pool("a", chip=accelerator(formats=("bf16", "fp8"))),
        "b": pool("b", chip=accelerator(formats=("int8",))),
    }
    planned = plan(stage("t"), one, pools=("a", "b"), **chips)
    assert planned["s"].formats == ("fp8", "int8")
    assert planned["t"].formats == ()


def test_an_endpoint_has_on_each_pool_the_replicas_that_are_said_of_it() -> None:
    scaled = Endpoint(
        name="chat",
        engine="jobs.engines.e",
        max_replicas=4,
        scale={"a": Scale(replicas=3), "b": Scale(max_replicas=8)},
    )
    bounds = [(scaled.on(name).replicas, scaled.on(name).max_replicas) for name in "abc"]
    assert bounds == [(3, 4), (1, 8), (1, 4)]
    one = stage("s", job=None, role=Role.SERVE, endpoint=scaled, inputs={"model": "t"}, hours=2.0)
    first, other = (plan(stage("t"), one, pools=order)["s"] for order in (("a", "b"), ("b",)))
    assert (first.devices, first.device_hours) == (3, 6.0)
    assert (other.devices, other.device_hours) == (1, 2.0)


def test_a_plan_holds_the_pools_that_may_help_an_endpoint() -> None:
    helped = Endpoint(name="chat", engine="jobs.engines.e", overflow=("a", "c"))
    one = stage("s", job=None, role=Role.SERVE, endpoint=helped, inputs={"model": "t"})
    planned = plan(stage("t"), one, pools=("a",))
    assert (planned["s"].pools, sorted(planned.pools)) == (("a",), ["a", "c"])
    assert sorted(vet(planned, [], Rules(), 0.0).plan.pools) == ["a", "c"]


def test_the_expected_cost_is_devices_times_hours_times_price() -> None:
    paid = pool("a", price_per_hour=2.0)
    one = stage("s", needs=Needs(workers=2, devices=2), hours=3.0)
    planned = plan(one, a=paid)
    assert planned["s"].devices == 4
    assert planned["s"].device_hours == 12.0
    assert planned.cost == 24.0


def test_a_cost_is_unknown_where_the_price_or_the_hours_are() -> None:
    paid, free = stage("s", hours=1.0), stage("t", needs=Needs(devices=0))
    assert plan(paid).cost is None
    assert plan(stage("s"), a=pool("a", price_per_hour=2.0)).cost is None
    assert plan(free).cost == 0.0


def test_a_plan_is_emulated_if_a_chosen_pool_is() -> None:
    emulated = pool("b", emulation=Emulation())
    assert not plan(stage("s"), pools=("a", "b"), b=emulated).emulated
    assert plan(stage("s"), pools=("b", "a"), b=emulated).emulated


def test_a_plan_over_its_cost_limit_is_refused_with_both_figures() -> None:
    paid = pool("a", price_per_hour=2000.0)
    assert plan(stage("s", hours=1.0), a=paid, cost_limit=2000.0).cost == 2000.0
    with pytest.raises(PlanError, match=r"cost_limit: expected cost \$2,000.00 is over 1999"):
        plan(stage("s", hours=1.0), a=paid, cost_limit=1999)


def test_a_stage_over_its_own_cost_limit_is_refused_by_name() -> None:
    paid = pool("a", price_per_hour=20.0)
    dear = stage("dear", hours=1.0, limits=Limits(cost=5.0))
    with pytest.raises(PlanError, match=r"^pipeline.stages.dear.limits.cost: expected cost \$20"):
        plan(dear, a=paid)
    assert plan(stage("s", hours=0.1, limits=Limits(cost=5.0)), a=paid).cost == 2.0


def test_a_cost_that_nobody_knows_beforehand_is_not_over_a_limit() -> None:
    paid = pool("a", price_per_hour=20.0)
    assert plan(stage("s", limits=Limits(cost=0.0)), a=paid, cost_limit=0.0).cost is None


def test_a_limit_of_money_on_a_pool_without_a_price_is_refused_with_the_way_out() -> None:
    paid, free = pool("a", price_per_hour=20.0), pool("b", price_per_hour=0.0)
    dear = stage("dear", limits=Limits(cost=5.0))
    on_host = stage("host", needs=Needs(devices=0), limits=Limits(cost=5.0))
    no_limit = "has no price, so no limit of"
    way_out = "set fleet.pools.c.price_per_hour, or set no limit"
    with pytest.raises(PlanError) as caught:
        plan(dear, stage("s"), on_host, a=paid, b=free, pools=("a", "b", "c"), cost_limit=9)
    assert [str(problem) for problem in caught.value.problems] == [
        f"pipeline.stages.dear.limits.cost: pool 'c' {no_limit} 5.0 can be kept there; {way_out}",
        f"cost_limit: pool 'c' {no_limit} 9 can be kept there; {way_out}",
    ]
    assert plan(dear, on_host, a=paid, b=free, pools=("a", "b"), cost_limit=9)
    assert plan(on_host, cost_limit=9).cost == 0.0


def test_a_fallback_that_is_not_available_is_left_out_with_its_reason() -> None:
    away = pool("b", available=False, reason="export ban")
    planned = plan(stage("s"), pools=("a", "b", "c"), b=away)["s"]
    assert (planned.pools, planned.left_out) == (("a", "c"), ("b",))
    assert planned.reasons == ("b is not available (export ban): no fallback",)


def test_a_pool_that_is_not_available_helps_no_endpoint_and_forbids_no_format() -> None:
    chat = Endpoint(
        name="chat", engine="jobs.engines.e", overflow=("b", "c"), formats=("fp8", "bf16")
    )
    serving = stage("s", job=None, endpoint=chat, inputs={"model": "m"})
    model = stage("m", params={"format": "auto"})
    both = accelerator(formats=("fp8", "bf16"))
    away = pool("b", available=False)
    made = plan(model, serving, pools=("a", "b"), a=pool("a", chip=both), b=away)
    assert made["s"].overflow == ("c",)
    assert made["s"].formats == ("fp8",)
    assert made["s"].reasons[-1] == "b is not available (no reason given): no help"
