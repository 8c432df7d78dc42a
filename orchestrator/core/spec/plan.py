"""Order the stages and bind each to its pools.

`make_plan` finds every problem before it refuses, so that a user mends a config in one go.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from orchestrator.core import prices
from orchestrator.core.errors import PlanError, Problem
from orchestrator.core.spec.bounds import problems_of_run
from orchestrator.core.spec.checks import problems_of
from orchestrator.core.spec.formats import left_out, runs, served_format, with_formats
from orchestrator.core.spec.hardware import Fleet, Format, Pool
from orchestrator.core.spec.parity import (
    moved_weights,
    text_problems,
    texts_of,
    with_engines,
)
from orchestrator.core.spec.policy import UNBOUNDED, Bounds
from orchestrator.core.spec.stages import Bindings, Pipeline, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A stage with its pools: `pools[0]` is chosen, the rest are fallbacks in order.

    `formats` holds, for an endpoint, the weight format on each pool. `left_out` are fallbacks of
    the role that can't be used at present, or can't serve the format which is made for the first
    pool; `reasons` says of each why, and of pools that can't help an endpoint out at present;
    and of a stage that compares how many texts that takes. On the `trusted` pools no node may be
    used but those that were qualified.
    """

    stage: Stage
    pools: tuple[str, ...]
    formats: tuple[Format, ...] = ()
    left_out: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    device_hours: float | None = None
    cost: float | None = None
    trusted: tuple[str, ...] = ()

    @property
    def overflow(self) -> tuple[str, ...]:
        """Pools that may help out its endpoint."""
        endpoint = self.stage.endpoint
        return endpoint.helpers(self.pools[0]) if endpoint else ()

    @property
    def devices(self) -> int:
        """Chips that an attempt uses on the first pool."""
        return self.stage.on_pool(self.pools[0]).devices


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A pipeline that can run: stages in dependency order, and all pools that they name.

    Of the stages that wait for one pool those of the run with the highest `priority` go first.
    """

    pipeline: str
    fleet: str
    stages: tuple[PlannedStage, ...]
    pools: Mapping[str, Pool]
    seed: int = 0
    bounds: Bounds = UNBOUNDED
    priority: int = 0

    @property
    def cost(self) -> float | None:
        """Expected cost of the whole pipeline in US dollars, `None` where unknown."""
        return prices.total(stage.cost for stage in self.stages)

    @property
    def emulated(self) -> bool:
        """Whether any chosen pool is emulated."""
        return any(self.pools[stage.pools[0]].emulated for stage in self.stages)

    def __getitem__(self, name: str) -> PlannedStage:
        """Return the planned stage called `name`; raises KeyError."""
        for planned in self.stages:
            if planned.stage.name == name:
                return planned
        raise KeyError(name)


def make_plan(
    pipeline: Pipeline,
    fleet: Fleet,
    bindings: Bindings,
    seed: int = 0,
    bounds: Bounds = UNBOUNDED,
    priority: int = 0,
) -> Plan:
    """Return the plan of `pipeline` on `fleet`.

    Raises:
        PlanError: With every reason why it can't run.
    """
    pipeline = with_engines(with_formats(pipeline, fleet, bindings))
    problems = [*problems_of(pipeline, fleet, bindings), *problems_of_run(bounds)]
    problems += text_problems(pipeline)
    if problems:
        raise PlanError(problems)
    stages = pipeline.by_name
    planned = tuple(_bind(stage, stages, fleet, bindings) for stage in _in_order(pipeline))
    plan = Plan(
        pipeline=pipeline.name,
        fleet=fleet.name,
        stages=planned,
        pools={n: fleet.pools[n] for bound in planned for n in (*bound.pools, *bound.overflow)},
        seed=seed,
        bounds=bounds,
        priority=priority,
    )
    problems = [*_unpriced(plan), *_cost_problems(plan)]
    if problems:
        raise PlanError(problems)
    return plan


def _in_order(pipeline: Pipeline) -> list[Stage]:
    """Return the stages in dependency order, ties by the order in which they were written."""
    place = {stage.name: index for index, stage in enumerate(pipeline.stages)}
    sorter = TopologicalSorter({stage.name: stage.upstream for stage in pipeline.stages})
    sorter.prepare()
    ordered: list[Stage] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=place.__getitem__)
        ordered.extend(pipeline.stages[place[name]] for name in ready)
        sorter.done(*ready)
    return ordered


def _bind(
    stage: Stage, stages: Mapping[str, Stage], fleet: Fleet, bindings: Bindings
) -> PlannedStage:
    pools = [fleet.pools[name] for name in bindings.order(stage)]
    away = [pool for pool in pools[1:] if not pool.available]
    usable = [pool for pool in pools if pool not in away]
    aside = left_out(stages, stage, usable)
    order = tuple(pool.name for pool in usable if pool.name not in aside)
    formats = (served_format(stages, stage, fleet.pools[name]) for name in order)
    written = tuple(form for form in formats if form is not None)
    reasons = [f"{pool.name} is not available ({pool.excuse}): no fallback" for pool in away]
    reasons += [
        f"{name} can't serve {written[0]}, made for {order[0]}: no fallback"
        if stage.endpoint is None or runs(stage, fleet.pools[name])
        else f"engine {stage.endpoint.engine} does not run on {name}: no fallback"
        for name in aside
    ]
    helped = _with_helpers(stage, fleet)
    reasons += [
        f"{name} is not available ({fleet.pools[name].excuse}): no help"
        for name in (stage.endpoint.overflow if stage.endpoint else ())
        if not fleet.pools[name].available
    ]
    texts = texts_of(stages, stage)
    reasons += [texts.line] if texts else []
    reasons += moved_weights(stages, stage)
    devices = stage.on_pool(order[0]).devices
    hours = None if stage.hours is None else devices * stage.hours
    price = fleet.pools[order[0]].price
    return PlannedStage(
        stage=helped,
        pools=order,
        formats=written,
        left_out=(*(pool.name for pool in away), *aside),
        reasons=tuple(reasons),
        device_hours=hours,
        cost=0.0 if devices == 0 else prices.money(hours, price),
    )


def _with_helpers(stage: Stage, fleet: Fleet) -> Stage:
    """Return the stage with the pools alone that can help its endpoint out at present."""
    if stage.endpoint is None:
        return stage
    helpers = tuple(name for name in stage.endpoint.overflow if fleet.pools[name].available)
    return replace(stage, endpoint=replace(stage.endpoint, overflow=helpers))


def _unpriced(plan: Plan) -> Iterator[Problem]:
    """Yield each limit of money on a pool of which nobody knows what it costs."""
    paid = {
        planned.stage.name: [
            name
            for name in planned.pools
            if plan.pools[name].price is None and planned.stage.on_pool(name).devices
        ]
        for planned in plan.stages
    }
    limits = [
        (f"pipeline.stages.{p.stage.name}.limits.cost", p.stage.limits.cost, paid[p.stage.name])
        for p in plan.stages
    ]
    everywhere = [*dict.fromkeys(name for names in paid.values() for name in names)]
    for path, limit, names in (*limits, ("cost_limit", plan.bounds.cost, everywhere)):
        for name in names if limit is not None else ():
            what = f"pool {name!r} has no price, so no limit of {limit!r} can be kept there"
            hint = f"set fleet.pools.{name}.price_per_hour, or set no limit"
            yield Problem(path, what, hint)


def _cost_problems(plan: Plan) -> Iterator[Problem]:
    hint = "raise it, or bind a cheaper pool"
    for planned in plan.stages:
        limit = planned.stage.limits.cost
        if limit is not None and planned.cost is not None and planned.cost > limit:
            path = f"pipeline.stages.{planned.stage.name}.limits.cost"
            yield Problem(path, f"expected cost ${planned.cost:,.2f} is over {limit!r}", hint)
    most = plan.bounds.cost
    if most is not None and plan.cost is not None and plan.cost > most:
        what = f"expected cost ${plan.cost:,.2f} is over {most!r}"
        yield Problem("cost_limit", what, hint)
