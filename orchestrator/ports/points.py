"""Metric points of all runs, and how far those who read them have come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.messages import Points


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A metric point as it was committed; `id` grows over the whole store."""

    id: int
    run: str
    stage: str
    attempt: int
    key: str
    value: float
    step: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """How many points one metric of an attempt has up to a certain one, and their last step."""

    stage: str
    attempt: int
    key: str
    points: int
    step: int


class MetricPoints(Protocol):
    """Memory of metric points. Raises `StoreError` for what the database refuses."""

    def add_points(self, run: str, stage: str, attempt: int, points: Sequence[Points]) -> None:
        """Commit metric points; a point that is there already is not added again.

        Raises:
            UnstorableError: Some can't be stored; all others are.
        """
        ...

    def points(self, run: str, after: int = 0, limit: int = 10_000) -> Sequence[Point]:
        """Return metric points of `run` with an id above `after`, by id."""
        ...

    def curves(self, run: str, upto: int) -> Sequence[Curve]:
        """Return the curves that the points of `run` up to id `upto` make, the first one first."""
        ...

    def curve_points(self, run: str, curve: Curve, above: float, upto: int) -> Sequence[Point]:
        """Return the points of a curve at steps `above`, up to id `upto`, by id."""
        ...

    def cursor(self, name: str) -> int:
        """Return the number kept under `name`; 0 when there is none."""
        ...

    def set_cursor(self, name: str, value: int) -> None:
        """Keep `value` under `name`."""
        ...
