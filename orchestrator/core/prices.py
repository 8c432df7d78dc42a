"""Device-hours and money. Prices are US dollars per device-hour; unknown ones stay unknown."""

from __future__ import annotations

from collections.abc import Iterable

SECONDS_PER_HOUR = 3600.0


def device_hours(devices: int, seconds: float) -> float:
    """Return the device-hours that `devices` chips use in `seconds`."""
    return devices * seconds / SECONDS_PER_HOUR


def money(hours: float | None, price: float | None) -> float | None:
    """Return the cost in US dollars of `hours` device-hours; `None` where it can't be known.

    What is free costs nothing, however long it takes.
    """
    if price == 0 or hours == 0:
        return 0.0
    return None if hours is None or price is None else hours * price


def total(costs: Iterable[float | None]) -> float | None:
    """Return the sum of `costs`, or `None` when any of them is unknown."""
    known = list(costs)
    return None if any(cost is None for cost in known) else sum(c for c in known if c is not None)
