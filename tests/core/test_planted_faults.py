"""Whether faults that are planted can come."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.core.spec.emulation import Emulation, Fault, FaultType
from orchestrator.core.spec.hardware import Role
from orchestrator.core.spec.planted_faults import problems_of_faults, without_others
from orchestrator.core.spec.stages import Endpoint, Needs, Stage
from tests.build import bindings, fleet, pipeline, pool, stage

GANG = stage("gang", needs=Needs(workers=3))
ALONE = stage("alone")


def lines(fault: Fault, *stages: Stage, on: Sequence[str] = ("a", "b")) -> list[str]:
    faulty = pool("b", emulation=Emulation(faults=(Fault(what=FaultType.DIE, at_step=1), fault)))
    whole = pipeline(*stages)
    return [str(p) for p in problems_of_faults(whole, fleet(pool("a"), faulty), bindings(*on))]


def on_rank(rank: int | None, *stages: str) -> Fault:
    return Fault(what=FaultType.DIE, at_step=5, rank=rank, stages=stages)


def test_a_fault_on_a_rank_that_does_not_exist_is_refused_with_those_that_do() -> None:
    (line,) = lines(on_rank(3), GANG, ALONE)
    what = "no stage that it hits has a worker 3 on pool 'b'; set 0 to 2, or ask for more workers"
    assert line == f"fleet.pools.b.emulation.faults.1.rank: {what}"
    assert lines(on_rank(1, "alone"), GANG, ALONE)[0].endswith("; set 0")


@pytest.mark.parametrize("fault", [on_rank(2), on_rank(0), on_rank(None), on_rank(2, "gang")])
def test_a_fault_on_a_rank_of_any_stage_that_it_hits_may_come(fault: Fault) -> None:
    assert lines(fault, GANG, ALONE) == []


def test_what_the_fault_can_not_hit_here_is_no_business_of_this_pipeline() -> None:
    assert lines(on_rank(9), GANG, on=("a",)) == []
    assert lines(on_rank(9, "another"), GANG, on=("a",)) == []


def test_a_fault_of_stages_that_there_are_not_is_refused_with_the_nearest() -> None:
    (line,) = lines(on_rank(0, "gnag"), GANG, ALONE)
    what = "pipeline 'test' has no stage 'gnag', so it would never come; did you mean 'gang'?"
    assert line.startswith(f"fleet.pools.b.emulation.faults.1.stages: {what} stages: alone, gang")
    assert lines(on_rank(0, "another", "gang"), GANG) == [], "it comes where it can"


def test_faults_that_another_pipeline_has_alone_can_be_left_out() -> None:
    faults = on_rank(0, "another"), on_rank(0, "gang"), on_rank(0)
    whole = fleet(pool("a"), pool("b", emulation=Emulation(faults=faults)))
    left = without_others(whole, pipeline(GANG)).pools
    assert left["b"].emulation == Emulation(faults=faults[1:])
    assert left["a"] == whole.pools["a"]


def test_replicas_up_to_the_most_are_workers_of_an_endpoint_also_where_it_only_helps_out() -> None:
    chat = Endpoint(name="chat", engine="jobs.engines.e", max_replicas=2, overflow=("b",))
    serving = stage("serve", role=Role.SERVE, job=None, endpoint=chat, inputs={"model": "m"})
    assert lines(on_rank(1), serving, on=("a",)) == []
    assert len(lines(on_rank(2), serving, on=("a",))) == 1
