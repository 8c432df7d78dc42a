"""Whether the faults that are planted on emulated pools can come at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.errors import Problem, shown
from orchestrator.core.nearest import choices
from orchestrator.core.spec.emulation import Fault
from orchestrator.core.spec.hardware import Fleet, Pool
from orchestrator.core.spec.stages import Bindings, Pipeline, Stage


def problems_of_faults(pipeline: Pipeline, fleet: Fleet, bindings: Bindings) -> Iterator[Problem]:
    """Yield each fault of stages that there are not, or on a rank that none has on its pool.

    A fault of a pool that the pipeline does not use is no business of it.
    """
    faulty = {
        name: pool
        for name, pool in fleet.pools.items()
        if pool.emulation and pool.emulation.faults
    }
    stages = _by_pool(pipeline, bindings) if faulty else {}
    for name, pool in faulty.items():
        for number, fault in enumerate(pool.emulation.faults if pool.emulation else ()):
            path = f"fleet.pools.{name}.emulation.faults.{number}"
            if name in stages and fault.stages and not pipeline.by_name.keys() & {*fault.stages}:
                yield _of_no_stage(f"{path}.stages", fault, pipeline)
            yield from _of_no_rank(f"{path}.rank", fault, pool, stages.get(name, ()))


def without_others(fleet: Fleet, pipeline: Pipeline) -> Fleet:
    """Return the fleet without faults that are meant for stages of another pipeline alone."""
    pools = {name: _without_others(pool, pipeline) for name, pool in fleet.pools.items()}
    return replace(fleet, pools=pools)


def _without_others(pool: Pool, pipeline: Pipeline) -> Pool:
    if pool.emulation is None:
        return pool
    faults = pool.emulation.faults
    own = tuple(f for f in faults if any(_hits(f, stage) for stage in pipeline.stages))
    return replace(pool, emulation=replace(pool.emulation, faults=own))


def _by_pool(pipeline: Pipeline, bindings: Bindings) -> Mapping[str, Sequence[Stage]]:
    """Return which stages may come to each pool."""
    stages_of: dict[str, list[Stage]] = {}
    for stage in pipeline.stages:
        overflow = stage.endpoint.overflow if stage.endpoint else ()
        for name in {*bindings.order(stage), *overflow}:
            stages_of.setdefault(name, []).append(stage)
    return stages_of


def _of_no_stage(path: str, fault: Fault, pipeline: Pipeline) -> Problem:
    names = ", ".join(shown(name) for name in fault.stages)
    what = f"pipeline {pipeline.name!r} has no stage {names}, so it would never come"
    return Problem(path, what, choices(fault.stages[0], pipeline.by_name, "stages"))


def _of_no_rank(path: str, fault: Fault, pool: Pool, stages: Sequence[Stage]) -> Iterator[Problem]:
    workers = [_most_workers(stage, pool) for stage in stages if _hits(fault, stage)]
    if fault.rank is not None and workers and fault.rank >= max(workers):
        most = max(workers)
        what = f"no stage that it hits has a worker {fault.rank!r} on pool {pool.name!r}"
        hint = f"set 0 to {most - 1}, or ask for more workers" if most > 1 else "set 0"
        yield Problem(path, what, hint)


def _hits(fault: Fault, stage: Stage) -> bool:
    return not fault.stages or stage.name in fault.stages


def _most_workers(stage: Stage, pool: Pool) -> int:
    placed = stage.on_pool(pool.name)
    return max(placed.processes, (placed.endpoint and placed.endpoint.max_replicas) or 0)
