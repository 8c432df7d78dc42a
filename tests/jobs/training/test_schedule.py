from __future__ import annotations

import pytest

from jobs.training.schedule import Schedule

SCHEDULE = Schedule(peak=1.0, warmup=4, steps=20, floor=0.1)


def test_the_rate_rises_in_a_line_to_its_peak() -> None:
    assert [SCHEDULE.rate(step) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_then_it_only_falls_to_its_floor() -> None:
    rates = [SCHEDULE.rate(step) for step in range(4, 21)]

    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == pytest.approx(0.1)


def test_no_warm_up_and_no_steps_left_are_fine() -> None:
    assert Schedule(peak=2.0, warmup=0, steps=0, floor=0.5).rate(0) == 2.0
