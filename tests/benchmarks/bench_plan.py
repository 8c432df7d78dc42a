"""Planning and deciding, which must not be felt however large the pipeline."""

from __future__ import annotations

from graphlib import TopologicalSorter

from orchestrator.core.decide import decide
from orchestrator.core.fold import apply, begin
from orchestrator.core.state import RunStarted
from tests.benchmarks.table import Row, compare, seconds
from tests.build import header, plan, stage

STAGES = 10_000
TURN_STAGES = 500


def rows() -> list[Row]:
    """Plan many stages, against sorting their bare graph; decide once about some hundred."""
    stages = [stage(f"s{index}", *_before(index)) for index in range(STAGES)]
    graph = {one.name: one.upstream for one in stages}
    planning = seconds(lambda: plan(*stages), times=3)
    sorting = seconds(lambda: [*TopologicalSorter(graph).static_order()], times=3)
    run = apply(begin(header(plan(*stages[:TURN_STAGES]))), RunStarted(1), 0.0)
    deciding = seconds(lambda: decide(run, 0.0))
    name = f"plan {STAGES:,} stages, against sorting their graph"
    return [
        compare(name, planning, sorting, goal="ours < 1 s"),
        Row(name=f"decide about {TURN_STAGES} stages", ours=deciding * 1e3, unit="ms"),
    ]


def _before(index: int) -> list[str]:
    return [f"s{before}" for before in (index - 1, index - 7) if before >= 0]
