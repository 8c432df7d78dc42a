"""Which faults come when."""

from __future__ import annotations

import pytest

from orchestrator.core.spec.emulation import Fault, FaultType
from orchestrator.emulation.fault_schedule import AttemptRank, FaultSchedule

WORKER = AttemptRank(stage="pretrain", attempt=1, rank=1)


def fault(**changes: object) -> Fault:
    facts = {"what": FaultType.HANG, **changes}
    return Fault(**facts)  # type: ignore[arg-type]


def steps_hit(one: Fault, worker: AttemptRank = WORKER, steps: int = 1000) -> list[int]:
    schedule = FaultSchedule([one], worker)
    return [step for step in range(steps) if schedule.due(step)]


def test_a_fault_comes_once_after_its_step() -> None:
    assert steps_hit(fault(at_step=40)) == [40]
    assert steps_hit(fault(at_step=0)) == [0]


def test_a_job_that_names_every_tenth_step_is_hit_at_the_next_that_it_names() -> None:
    schedule = FaultSchedule([fault(at_step=41)], WORKER)
    assert [step for step in range(0, 100, 10) if schedule.due(step)] == [50]


def test_a_job_that_goes_on_after_the_step_is_not_hit_again() -> None:
    schedule = FaultSchedule([fault(at_step=40)], WORKER)
    assert schedule.due(0) == []
    schedule.resume(60)
    assert not any(schedule.due(step) for step in range(61, 200))


def test_a_job_that_goes_on_before_the_step_is_hit_again() -> None:
    schedule = FaultSchedule([fault(at_step=40)], WORKER)
    schedule.resume(20)
    assert [step for step in range(21, 60) if schedule.due(step)] == [40]


@pytest.mark.parametrize(
    "change", [{"rank": 0}, {"stages": ("evaluate",)}, {"attempts": 0}], ids=str
)
def test_what_is_meant_for_others_does_not_come(change: dict[str, object]) -> None:
    assert steps_hit(fault(at_step=40, **change)) == []


@pytest.mark.parametrize(
    "change", [{"rank": 1}, {"stages": ("evaluate", "pretrain")}, {"attempts": 1}], ids=str
)
def test_what_is_meant_for_this_worker_comes(change: dict[str, object]) -> None:
    assert steps_hit(fault(at_step=40, **change)) == [40]


def test_a_rate_hits_about_so_many_steps_and_never_before_the_first() -> None:
    hit = steps_hit(fault(rate=0.1), steps=10_000)
    assert 850 < len(hit) < 1150
    assert 0 not in steps_hit(fault(rate=1.0), steps=3)


def test_the_draws_of_a_rate_depend_on_seed_attempt_and_rank_alone() -> None:
    one = steps_hit(fault(rate=0.1))
    assert steps_hit(fault(rate=0.1)) == one
    assert steps_hit(fault(rate=0.1, seed=1)) != one
    assert steps_hit(fault(rate=0.1), AttemptRank(stage="pretrain", attempt=2, rank=1)) != one
    assert steps_hit(fault(rate=0.1), AttemptRank(stage="pretrain", attempt=1, rank=0)) != one


def test_steps_that_are_not_named_are_drawn_for_too() -> None:
    every, tenth = (
        FaultSchedule([fault(rate=0.1)], WORKER),
        FaultSchedule([fault(rate=0.1)], WORKER),
    )
    hit = {-(-step // 10) * 10 for step in range(1001) if every.due(step)}
    assert {step for step in range(0, 1001, 10) if tenth.due(step)} == hit
