"""Device-hours and money: what is unknown stays unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core import prices

maybe = st.none() | st.floats(0, 1e6)


def test_device_hours_are_devices_times_hours() -> None:
    assert prices.device_hours(8, 1800) == 4.0
    assert prices.device_hours(0, 1800) == 0.0


@given(hours=maybe, price=maybe)
def test_a_cost_is_unknown_when_hours_or_price_are_and_nothing_is_free(
    hours: float | None, price: float | None
) -> None:
    found = prices.money(hours, price)
    free = 0 in (hours, price)
    assert (found is None) == (not free and (hours is None or price is None))
    if hours is not None and price is not None:
        assert found == hours * price


@given(costs=st.lists(maybe))
def test_a_total_is_unknown_exactly_when_a_part_is(costs: list[float | None]) -> None:
    found = prices.total(iter(costs))
    assert (found is None) == (None in costs)
    if found is not None:
        assert found == pytest.approx(sum(one for one in costs if one is not None))
