"""What endpoints were used for, and what they held, by key, pool and day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator import wiring
from orchestrator.core.endpoints.metering import Occupancy, Usage, day_of, grouped
from orchestrator.core.errors import ConfigError, Problem

FIELDS = ("endpoint", "key", "pool", "day", "revision")
DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Sums of what was `used`, and what was `occupied` by replicas, asked or not."""

    used: Sequence[Usage]
    occupied: Sequence[Occupancy]


def cost(by: Sequence[str], days: float) -> Cost:
    """Return the sums of the last `days` by some of `FIELDS`.

    Raises:
        ConfigError: A name is none of them.
    """
    unknown = [name for name in by if name not in FIELDS]
    if unknown:
        what = f"{unknown[0]!r} is nothing to sort by"
        raise ConfigError([Problem("--by", what, f"write some of {', '.join(FIELDS)}")])
    store = wiring.database(wiring.home())
    since = day_of(store.now() - (days - 1) * DAY)
    return Cost(grouped(store.usage(since), by), store.occupancy(since))
