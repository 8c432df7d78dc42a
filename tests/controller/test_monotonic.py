"""The time of a run does not jump with the time of day."""

from __future__ import annotations

import pytest

from orchestrator.controller.monotonic import MonotonicClock
from tests.fakes import FakeClock


@pytest.mark.parametrize("seconds", [3600.0, -3600.0, 86400.0])
def test_a_jump_is_left_out(seconds: float) -> None:
    outside = FakeClock(1000.0)
    clock = MonotonicClock(outside, since=1000.0)
    outside.step(seconds)
    outside.sleep(5.0)
    assert clock.now() == pytest.approx(1005.0)
    outside.step(-seconds)
    outside.sleep(5.0)
    assert clock.now() == pytest.approx(1010.0)


def test_a_small_correction_is_followed_but_never_back() -> None:
    outside = FakeClock(1000.0)
    clock = MonotonicClock(outside, since=1000.0)
    outside.step(0.5)
    assert clock.now() == 1000.5
    outside.step(-0.2)
    assert clock.now() == 1000.5
    outside.sleep(1.0)
    assert clock.now() == pytest.approx(1001.3)


@pytest.mark.parametrize("since", [4600.0, 400.0])
def test_it_begins_at_the_time_of_the_database(since: float) -> None:
    outside = FakeClock(1000.0)
    clock = MonotonicClock(outside, since=since)
    outside.sleep(5.0)
    assert clock.now() == since + 5.0
