"""Whether the faults that are planted on emulated pools can come at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from orchestrator.core.emulation import Fault
from orchestrator.core.errors import Problem
from orchestrator.core.hardware import Fleet, Pool
from orchestrator.core.spec import Bindings, Pipeline, Stage


def problems_of_faults(pipeline: Pipeline, fleet: Fleet, bindings: Bindings) -> Iterator[Problem]:
    """Yield each fault on a rank that no stage has on its pool.

    A fault of stages of another pipeline is no business of this one.
    """
    faulty = {
        name: pool
        for name, pool in fleet.pools.items()
        if pool.emulation and pool.emulation.faults
    }
    stages = _by_pool(pipeline, bindings) if faulty else {}
    for name, pool in faulty.items():
        yield from _problems(pool, stages.get(name, ()))


def _by_pool(pipeline: Pipeline, bindings: Bindings) -> Mapping[str, Sequence[Stage]]:
    """Return which stages may come to each pool."""
    found: dict[str, list[Stage]] = {}
    for stage in pipeline.stages:
        overflow = stage.endpoint.overflow if stage.endpoint else ()
        for name in {*bindings.order(stage.role), *overflow}:
            found.setdefault(name, []).append(stage)
    return found


def _problems(pool: Pool, stages: Sequence[Stage]) -> Iterator[Problem]:
    assert pool.emulation is not None, "a pool with faults is emulated"  # noqa: S101
    for number, fault in enumerate(pool.emulation.faults):
        workers = [_most_workers(s, pool) for s in stages if _hits(fault, s)]
        if fault.rank is not None and workers and fault.rank >= max(workers):
            most = max(workers)
            what = f"no stage that it hits has a worker {fault.rank!r} on pool {pool.name!r}"
            hint = f"set 0 to {most - 1}, or ask for more workers" if most > 1 else "set 0"
            yield Problem(f"fleet.pools.{pool.name}.emulation.faults.{number}.rank", what, hint)


def _hits(fault: Fault, stage: Stage) -> bool:
    return not fault.stages or stage.name in fault.stages


def _most_workers(stage: Stage, pool: Pool) -> int:
    there = stage.on(pool.name)
    return max(there.processes, (there.endpoint and there.endpoint.max_replicas) or 0)
