"""Who may pass others in the line of a pool, and who is passed by nobody."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestrator.controller.backfill import SECONDS_OF_PASSING, held_up_by
from orchestrator.messages import PoolState, PoolStatus, Queued


def entry(run: str, devices: int, *, priority: int = 0, since: float = 0.0) -> Queued:
    return Queued(pool="a", run=run, stage="s", priority=priority, since=since, devices=devices)


def pool(free: int) -> PoolStatus:
    return PoolStatus(name="a", state=PoolState.UP, nodes=1, devices=8, free=free)


def test_a_small_one_passes_a_large_one_that_has_no_room() -> None:
    large, small = entry("large", 8), entry("small", 1, since=1.0)

    assert held_up_by(small, [large, small], pool(4), 10.0) is None
    assert held_up_by(small, [large, small], pool(8), 10.0) == large, "that one starts now"
    assert held_up_by(small, [large, small], pool(0), 10.0) == large
    assert held_up_by(small, [large, small], None, 10.0) == large, "nobody knows what is free"
    assert held_up_by(large, [large, small], pool(4), 10.0) is None, "the first asks in any case"


def test_nobody_takes_the_chips_of_those_ahead_that_fit() -> None:
    line = [entry("large", 8), entry("middle", 3, since=1.0), entry("small", 2, since=2.0)]

    assert held_up_by(line[1], line, pool(4), 10.0) is None
    assert held_up_by(line[2], line, pool(4), 10.0) == line[0], "one chip is left"
    assert held_up_by(line[2], line, pool(5), 10.0) is None


def test_one_that_has_waited_for_long_is_passed_by_nobody() -> None:
    large, small = entry("large", 8), entry("small", 1, since=1.0)

    assert held_up_by(small, [large, small], pool(4), SECONDS_OF_PASSING + 1.0) == large


def test_priority_goes_before_who_came_first_and_other_pools_do_not_matter() -> None:
    first, urgent = entry("first", 1), entry("urgent", 1, priority=5, since=9.0)

    assert held_up_by(first, [first, urgent], pool(1), 10.0) == urgent
    assert held_up_by(urgent, [first, urgent], pool(1), 10.0) is None


@given(sizes=st.lists(st.integers(1, 8), min_size=1, max_size=6), free=st.integers(0, 8))
def test_those_that_start_together_fit_and_whoever_fits_alone_makes_something_start(
    sizes: list[int], free: int
) -> None:
    line = [entry(f"r{n}", size, since=float(n)) for n, size in enumerate(sizes)]
    start = [one for one in line if held_up_by(one, line, pool(free), 10.0) is None]

    assert sum(one.devices for one in start if one is not line[0]) <= free
    assert start, "the first in line asks in any case"
    if any(one.devices <= free for one in line):
        assert any(one.devices <= free for one in start)
