from __future__ import annotations

import pytest
import torch
import transformers
from torch.optim.lr_scheduler import LambdaLR

from jobs.training.schedule import Schedule, schedule_of

SCHEDULE = Schedule(peak=1.0, warmup=4, steps=20, floor=0.1)


def test_the_rate_rises_in_a_line_to_its_peak() -> None:
    assert [SCHEDULE.rate(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_then_it_only_falls_to_its_floor() -> None:
    rates = [SCHEDULE.rate(step) for step in range(4, 21)]

    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.1)


def test_no_warm_up_and_no_steps_left_are_fine() -> None:
    assert Schedule(peak=2.0, warmup=0, steps=0, floor=0.5).rate(0) == 2.0


def rates(scheduled: LambdaLR) -> list[float]:
    """What a schedule of transformers says of the steps from the warm-up on."""
    return [float(scheduled.lr_lambdas[0](step)) for step in range(4, 21)]


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def test_a_linear_schedule_is_that_of_transformers() -> None:
    ours = schedule_of({"kind": "linear", "floor": 0}, peak=1.0, warmup=4, steps=20, floor=0.1)
    theirs = transformers.get_linear_schedule_with_warmup(optimizer(), 4, 20)
    assert [ours.rate(step) for step in range(4, 21)] == pytest.approx(rates(theirs))


def test_warm_up_stable_decay_is_that_of_transformers() -> None:
    config = {"kind": "wsd", "decay": 0.25}
    ours = schedule_of(config, peak=1.0, warmup=4, steps=20, floor=0.1)
    theirs = transformers.get_wsd_schedule(
        optimizer(), 4, 5, num_training_steps=20, decay_type="linear", min_lr_ratio=0.1
    )
    assert [ours.rate(step) for step in range(4, 21)] == pytest.approx(rates(theirs))


def test_without_a_config_the_schedule_is_the_cosine_of_before() -> None:
    assert schedule_of(None, peak=1.0, warmup=4, steps=20, floor=0.1) == SCHEDULE


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"kind": "exponential"}, "schedule.kind='exponential' is none of 'cosine', 'linear'"),
        ({"kind": "linear", "power": 2}, "schedule 'linear' has no field 'power'; it has warmup"),
        ({"decay": 0.2}, "schedule 'cosine' has no field 'decay'; it has warmup, floor"),
        ({"kind": "linear", "decay": 0.2}, "schedule 'linear' has no field 'decay'"),
        (
            {"kind": "wsd", "decay": 1.5},
            "schedule.decay=1.5: give a number, at least 0, at most 1",
        ),
        ({"warmup": 2.5}, "schedule.warmup=2.5: give a whole number, at least 0"),
    ],
)
def test_a_schedule_that_is_none_is_refused_with_its_value(
    config: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        schedule_of(config, peak=1.0, warmup=4, steps=20, floor=0.1)


def test_a_parameter_of_the_job_that_is_none_is_refused_by_its_own_name() -> None:
    with pytest.raises(ValueError, match=r"^warmup=-1: give a whole number"):
        schedule_of({"floor": 0.1}, peak=1.0, warmup=-1, steps=20, floor=0.1)
    with pytest.raises(ValueError, match=r"^learning_rate_floor=2\.0: give a number"):
        schedule_of({"kind": "wsd"}, peak=1.0, warmup=1, steps=20, floor=2.0)
    assert schedule_of({"floor": 0.1}, peak=1.0, warmup=1, steps=20, floor=2.0).floor == 0.1
