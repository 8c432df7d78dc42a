"""Metric points from the event store to the MLflow runs, in order, behind a cursor.

A point goes to its attempt; where the stage trains, to the run as well, because MLflow draws only
the rows that its table shows. The run gets a curve's first 500 points, then ever fewer: MLflow
draws some hundreds. Points keep their stored times and are counted in the order of the store, so
writing again writes the same. The cursor belongs to one MLflow run: on a new server it starts at
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.mlflow_tracker import fields
from orchestrator.adapters.mlflow_tracker.outbox import Outbox
from orchestrator.adapters.mlflow_tracker.server import MetricPoint, Shown
from orchestrator.core.run import RunHeader
from orchestrator.core.spec import Role
from orchestrator.ports import EventStore, Point

PAGE = 900  # what fits into one request
_SCAN = 10_000
_ALL = 500
Attempts = Mapping[tuple[str, int], Shown]


@dataclass(slots=True)
class _Curve:
    """One metric of one attempt, so far."""

    step: int = 0
    points: int = 0

    def add(self, point: Point) -> bool:
        """Take a point in; return whether it belongs to those that stand for the curve."""
        self.step = max(self.step, point.step)
        stride = 1 << (self.points // _ALL).bit_length()
        chosen = self.points < _ALL or self.points % stride == 0
        self.points += 1
        return chosen


class Curves:
    """The metric points of one run."""

    def __init__(self, store: EventStore, header: RunHeader) -> None:
        """Remember which stages train."""
        self._store = store
        self._run = header.run
        stages = (planned.stage for planned in header.plan.stages)
        self._training = frozenset(s.name for s in stages if s.role is Role.TRAIN)
        self._cursor = ""
        self._at = 0
        self._curves: dict[tuple[str, int, str], _Curve] = {}

    @property
    def names(self) -> list[str]:
        """Names of the curves that the run has, in the order of their first points."""
        found = [fields.name(f"{stage}/{key}") for stage, _, key in self._curves]
        return list(dict.fromkeys(found))

    def draw(self, parent: Shown, attempts: Attempts, outbox: Outbox) -> None:
        """Write what is new; each page is flushed before the cursor moves past it."""
        if self._cursor != f"mlflow/{parent.id}":
            self._open(f"mlflow/{parent.id}")
        while points := self._store.points(self._run, self._at, PAGE):
            known = list(_until_unknown(points, attempts))
            for point in known:
                self._post(point, parent, attempts, outbox)
            outbox.flush()
            if known:
                self._at = known[-1].id
                self._store.set_cursor(self._cursor, self._at)
            if len(known) < len(points):
                return  # of an attempt that the next pass will know

    def forget(self) -> None:
        """Go back to the cursor: a page that broke off will be counted again."""
        self._cursor = ""
        self._curves.clear()

    def headline(
        self, stage: str, metrics: Mapping[str, float], at: float, number: int | None = None
    ) -> list[MetricPoint]:
        """Return the metrics that a stage ended with, for attempt `number` or for the run.

        Where a curve has the same name, they stand at its end: MLflow shows the last step.
        """
        prefix = f"{stage}/" if number is None else ""
        ends: dict[str, int] = {}
        for (name, attempt, key), curve in self._curves.items():
            if name == stage and number in {None, attempt}:
                ends[key] = max(curve.step, ends.get(key, 0))
        return [
            MetricPoint(fields.name(f"{prefix}{key}"), value, ends.get(key, 0), round(at * 1000))
            for key, value in metrics.items()
        ]

    def _open(self, cursor: str) -> None:
        """Go to where the writing stopped, and learn how far the curves had come there."""
        self._cursor, self._at = cursor, self._store.cursor(cursor)
        seen = 0
        while seen < self._at:
            points = self._store.points(self._run, seen, _SCAN)
            for point in points:
                if point.id <= self._at:
                    self._note(point)
            seen = points[-1].id if points else self._at

    def _post(self, point: Point, parent: Shown, attempts: Attempts, outbox: Outbox) -> None:
        chosen = self._note(point)
        outbox.post(attempts[point.stage, point.attempt], _metric(point, point.key))
        if chosen and point.stage in self._training:
            outbox.post(parent, _metric(point, f"{point.stage}/{point.key}"))

    def _note(self, point: Point) -> bool:
        place = (point.stage, point.attempt, point.key)
        return self._curves.setdefault(place, _Curve()).add(point)


def _until_unknown(points: Sequence[Point], attempts: Attempts) -> Iterator[Point]:
    for point in points:
        if (point.stage, point.attempt) not in attempts:
            return
        yield point


def _metric(point: Point, key: str) -> MetricPoint:
    return MetricPoint(fields.name(key), point.value, point.step, round(point.at * 1000))
