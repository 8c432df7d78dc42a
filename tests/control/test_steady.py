"""The time of a run does not jump with the time of day."""

from __future__ import annotations

import pytest

from orchestrator.control.steady import SteadyClock
from tests.fakes import FakeClock


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 86400.0])
def test_a_jump_is_left_out(seconds: float) -> None:
    clock = FakeClock(1000.0)
    steady = SteadyClock(clock)
    clock.step(seconds)
    clock.sleep(5.0)
    assert steady.now() == pytest.approx(1005.0)
    clock.step(-seconds)
    clock.sleep(5.0)
    assert steady.now() == pytest.approx(1010.0)


def test_a_small_correction_is_followed_but_never_back() -> None:
    clock = FakeClock(1000.0)
    steady = SteadyClock(clock)
    clock.step(0.5)
    assert steady.now() == 1000.5
    clock.step(-0.2)
    assert steady.now() == 1000.5
    clock.sleep(1.0)
    assert steady.now() == pytest.approx(1001.3)


def test_it_begins_after_what_has_happened_already() -> None:
    clock = FakeClock(1000.0)
    steady = SteadyClock(clock, since=4600.0)
    clock.sleep(5.0)
    assert steady.now() == 4605.0
