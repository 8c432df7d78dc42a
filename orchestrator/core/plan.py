"""Order the stages, bind each to pools, and refuse what can be known to be impossible.

`make_plan` finds every problem before it refuses. Each problem carries the config path at which
the user can mend it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from orchestrator.core import cost
from orchestrator.core.errors import PlanError, Problem
from orchestrator.core.spec import Bindings, Fleet, Format, Pipeline, Pool, Role, Stage


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStage:
    """A stage with its pools: `pools[0]` is chosen, the rest are fallbacks in order.

    `formats` holds, for an endpoint, the weight format on each pool.
    """

    stage: Stage
    pools: tuple[str, ...]
    formats: tuple[Format, ...] = ()
    device_hours: float | None = None
    cost: float | None = None

    @property
    def devices(self) -> int:
        """Chips that an attempt uses."""
        return devices_of(self.stage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A pipeline that can run: stages in dependency order, and the pools that they name."""

    pipeline: str
    fleet: str
    stages: tuple[PlannedStage, ...]
    pools: Mapping[str, Pool]
    seed: int = 0
    cost_limit: float | None = None

    @property
    def cost(self) -> float | None:
        """Expected cost of the whole pipeline in US dollars, `None` where unknown."""
        return cost.total(stage.cost for stage in self.stages)

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


def devices_of(stage: Stage) -> int:
    """Return the chips that one attempt of `stage` uses on its pool."""
    replicas = stage.endpoint.replicas if stage.endpoint else stage.needs.workers
    return replicas * stage.needs.devices


def make_plan(
    pipeline: Pipeline,
    fleet: Fleet,
    bindings: Bindings,
    *,
    seed: int = 0,
    cost_limit: float | None = None,
) -> Plan:
    """Return the plan of `pipeline` on `fleet`.

    Raises:
        PlanError: With every reason why it can't run.
    """
    problems = [*_binding_problems(fleet, bindings), *_graph_problems(pipeline)]
    if problems:
        raise PlanError(problems)
    planned = []
    for stage in _in_order(pipeline):
        found, reasons = _bind(stage, fleet, bindings)
        problems.extend(reasons)
        planned.append(found)
    plan = Plan(
        pipeline=pipeline.name,
        fleet=fleet.name,
        stages=tuple(planned),
        pools={name: fleet.pools[name] for stage in planned for name in stage.pools},
        seed=seed,
        cost_limit=cost_limit,
    )
    if not problems and cost_limit is not None and (plan.cost or 0) > cost_limit:
        what = f"expected cost ${plan.cost:,.2f} is over the limit {cost_limit!r}"
        problems.append(Problem("cost_limit", what, "raise it, or bind a cheaper pool"))
    if problems:
        raise PlanError(problems)
    return plan


def _binding_problems(fleet: Fleet, bindings: Bindings) -> Iterator[Problem]:
    names = ", ".join(sorted(fleet.pools)) or "none"
    hint = f"pools of this fleet: {names}"
    for role, name in bindings.roles.items():
        if name not in fleet.pools:
            what = f"{name!r} is not a pool of fleet {fleet.name!r}"
            yield Problem(f"roles.{role}", what, hint)
    for role, fallbacks in bindings.fallbacks.items():
        for name in fallbacks:
            if name not in fleet.pools:
                what = f"{name!r} is not a pool of fleet {fleet.name!r}"
                yield Problem(f"fallbacks.{role}", what, hint)


def _graph_problems(pipeline: Pipeline) -> Iterator[Problem]:
    names = [stage.name for stage in pipeline.stages]
    for name in dict.fromkeys(name for name in names if names.count(name) > 1):
        yield Problem(f"pipeline.stages.{name}", f"two stages are called {name!r}", "rename one")
    known = set(names)
    for stage in pipeline.stages:
        for upstream in stage.upstream:
            if upstream not in known:
                what = f"reads from {upstream!r}, which is not a stage"
                hint = f"stages: {', '.join(sorted(known))}"
                yield Problem(f"pipeline.stages.{stage.name}", what, hint)
    yield from _cycle_problems(pipeline)


def _cycle_problems(pipeline: Pipeline) -> Iterator[Problem]:
    graph = {stage.name: stage.upstream for stage in pipeline.stages}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        cycle = " -> ".join(reversed(error.args[1]))
        yield Problem("pipeline.stages", f"the stages form a cycle: {cycle}", "cut it somewhere")


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


def _bind(stage: Stage, fleet: Fleet, bindings: Bindings) -> tuple[PlannedStage, list[Problem]]:
    path = f"pipeline.stages.{stage.name}"
    order = bindings.order(stage.role)
    if stage.role not in bindings.roles:
        hint = f"set roles.{stage.role} to one of: {', '.join(sorted(fleet.pools))}"
        missing = Problem(f"roles.{stage.role}", f"no pool for stage {stage.name!r}", hint)
        return PlannedStage(stage=stage, pools=()), [missing]
    problems: list[Problem] = []
    for name in order:
        problems.extend(_pool_problems(path, stage, fleet.pools[name]))
    first = fleet.pools[order[0]]
    hours = None if stage.hours is None else devices_of(stage) * stage.hours
    planned = PlannedStage(
        stage=stage,
        pools=order,
        formats=tuple(_formats(stage, (fleet.pools[name] for name in order))),
        device_hours=hours,
        cost=0.0 if devices_of(stage) == 0 else cost.money(hours, first.price),
    )
    return planned, problems


def _formats(stage: Stage, pools: Iterable[Pool]) -> Iterator[Format]:
    if stage.endpoint is None:
        return
    for pool in pools:
        shared = (f for f in stage.endpoint.formats if f in pool.accelerator.formats)
        found = next(shared, None)
        if found is not None:
            yield found


def _pool_problems(path: str, stage: Stage, pool: Pool) -> Iterator[Problem]:
    where = f"pool {pool.name!r}"
    if not pool.available:
        yield Problem(path, f"{where} is not available: {pool.reason or 'no reason given'}")
    if stage.role not in pool.allowed_roles:
        allowed = ", ".join(pool.allowed_roles)
        what = f"{where} does not take the role {str(stage.role)!r}"
        yield Problem(path, what, f"roles that it takes: {allowed}")
    yield from _size_problems(path, stage, pool)
    yield from _memory_problems(path, stage, pool)
    if stage.endpoint and not any(f in pool.accelerator.formats for f in stage.endpoint.formats):
        served = ", ".join(pool.accelerator.formats)
        what = f"{where} can't serve {', '.join(stage.endpoint.formats)!r}"
        yield Problem(path, what, f"formats that it serves: {served}")


def _size_problems(path: str, stage: Stage, pool: Pool) -> Iterator[Problem]:
    needed, each = devices_of(stage), stage.needs.devices
    if needed > pool.devices:
        what = f"needs {needed!r} devices, {pool.name!r} has {pool.devices!r}"
        yield Problem(f"{path}.needs", what, "ask for fewer, or bind a larger pool")
    elif each > pool.devices_per_node:
        what = f"needs {each!r} devices in one worker, a node of {pool.name!r} has "
        yield Problem(f"{path}.needs.devices", f"{what}{pool.devices_per_node!r}", "ask for fewer")
    if stage.needs.cpus > pool.cpus_per_node:
        what = f"needs {stage.needs.cpus!r} cores in one worker, a node of {pool.name!r} has "
        yield Problem(f"{path}.needs.cpus", f"{what}{pool.cpus_per_node!r}", "ask for fewer")


def _memory_problems(path: str, stage: Stage, pool: Pool) -> Iterator[Problem]:
    need, have = stage.needs.memory_gb, pool.accelerator.memory_gb
    if need is not None and have is not None and need > have * max(stage.needs.devices, 1):
        what = f"needs {need!r} GB in a worker, {pool.accelerator.name!r} has {have!r} GB a chip"
        yield Problem(f"{path}.needs.memory_gb", what, "use more devices, or another pool")


def role_names() -> tuple[str, ...]:
    """Return the names of the roles."""
    return tuple(role.value for role in Role)
