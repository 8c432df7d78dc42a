"""What endpoints were used for, by key, pool and day, and what was held for them meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What answers to a key came to on one day (UTC) at one revision.

    Attributes:
        day: As `2026-11-28`.
        key: Name of the API key; empty where none was asked for.
        endpoint: Name of the endpoint.
        revision: As `r3`.
        pool: Where its replicas are.
        requests: How many were let in and came to a replica.
        prompt_tokens: Of the prompts.
        completion_tokens: Of the answers.
        seconds: That slots were taken, together.
        cost: US dollars: the part of its replicas that it took, where that has a price.
    """

    day: str
    key: str
    endpoint: str
    revision: str
    pool: str
    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    cost: float = 0.0

    @property
    def tokens(self) -> int:
        """All tokens."""
        return self.prompt_tokens + self.completion_tokens

    @property
    def place(self) -> tuple[str, ...]:
        """All that tells it from others."""
        return (self.day, self.key, self.endpoint, self.revision, self.pool)

    def plus(self, more: Usage) -> Usage:
        """Return both together, where this one was."""
        names = [field.name for field in fields(self)][len(self.place) :]
        sums = {name: getattr(self, name) + getattr(more, name) for name in names}
        return replace(self, **sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """What an endpoint's replicas on a pool held on one day (UTC), asked or not."""

    day: str
    endpoint: str
    pool: str
    device_seconds: float = 0.0
    cost: float = 0.0


def day_of(at: float) -> str:
    """Return the day (UTC) of a time in seconds since the epoch."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def month_of(at: float) -> str:
    """Return the first day of the month (UTC) of a time."""
    return datetime.fromtimestamp(at, UTC).date().replace(day=1).isoformat()


def grouped(usages: Iterable[Usage], by: Sequence[str]) -> list[Usage]:
    """Return the sums of `usages` for each value of the fields `by`; other places are empty."""
    empty: dict[str, Any] = dict.fromkeys(set(_PLACES) - set(by), "")
    sums: dict[tuple[str, ...], Usage] = {}
    for usage in usages:
        plain = replace(usage, **empty)
        before = sums.get(plain.place)
        sums[plain.place] = plain if before is None else before.plus(plain)
    return sorted(sums.values(), key=lambda usage: [getattr(usage, name) for name in by])


_PLACES = ("day", "key", "endpoint", "revision", "pool")
