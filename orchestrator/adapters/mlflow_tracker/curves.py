"""Metric points from the database to the MLflow runs, in order, behind a cursor.

A point goes to its attempt at once. Where the stage trains it goes to the run as well, because
MLflow draws only the rows that its table shows, and there all attempts make one curve with one
value a step: a point is held back until it can't be superseded, which is when a checkpoint at or
after its step is committed or the stage has ended. What lies beyond the checkpoint from which the
next attempt goes on is left out; and where an attempt is rolled back behind a step that the run
shows, that step keeps the value it has, for MLflow can't take one away.

The run gets an attempt's first 320 points of a curve, then ever fewer: that is how many MLflow
draws. Points keep their stored times, so writing again writes the same. The cursor belongs to
one MLflow run: on a new server it starts at nothing. How far the run's curves have come, the
server itself says.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.adapters.mlflow_tracker import fields
from orchestrator.adapters.mlflow_tracker.experiment import MetricPoint, MlflowRun
from orchestrator.adapters.mlflow_tracker.outbox import Outbox
from orchestrator.adapters.mlflow_tracker.tracked_run import has_begun
from orchestrator.core.runs.run import Attempt, Run, RunHeader, StageRun
from orchestrator.core.spec.hardware import Role
from orchestrator.ports import Curve, MetricPoints, Point

logger = logging.getLogger(__name__)

PAGE = 900  # what fits into one request
_ALL = 320
Attempts = Mapping[tuple[str, int], MlflowRun]


@dataclass(slots=True)
class _AttemptCurve:
    """One metric of one attempt, so far."""

    step: int = 0
    points: int = 0

    def add(self, point: Point) -> bool:
        """Take a point in; return whether it belongs to those that stand for the curve."""
        self.step = max(self.step, point.step)
        self.points += 1
        return _stands(self.points - 1)


def _stands(number: int) -> bool:
    """Whether the point of a curve with this number, from 0, is one of those that stand for it."""
    stride = 1 << (number // _ALL).bit_length()
    return number < _ALL or number % stride == 0


@dataclass(slots=True)
class _RunCurve:
    """One curve of the run: the steps above `floor` are those of `attempt`."""

    attempt: int = 0
    floor: float = -math.inf
    top: float = -math.inf

    def add(self, attempt: int, step: int) -> bool:
        """Take a point in; return whether the run lacks a value at its step."""
        if attempt > self.attempt:
            self.attempt, self.floor = attempt, self.top
        if attempt < self.attempt or step <= self.floor:
            return False
        self.top = max(self.top, step)
        return True


class Curves:
    """The metric points of one run."""

    def __init__(self, store: MetricPoints, header: RunHeader) -> None:
        """Remember which stages train."""
        self._store = store
        self._run = header.run
        stages = (planned.stage for planned in header.plan.stages)
        self._training = frozenset(s.name for s in stages if s.role is Role.TRAIN)
        self._cursor = ""
        self._last_id = 0
        self._left_out = 0
        self._curves: dict[tuple[str, int, str], _AttemptCurve] = {}
        self._unshown: dict[tuple[str, int], list[Point]] = {}
        self._lines: dict[tuple[str, str], _RunCurve] = {}

    @property
    def names(self) -> list[str]:
        """Names of the curves that the run has, in the order of their first points."""
        names = [fields.name(f"{stage}/{key}") for stage, _, key in self._curves]
        return list(dict.fromkeys(names))

    def draw(self, run: Run, parent: MlflowRun, attempts: Attempts, outbox: Outbox) -> None:
        """Write what is new; each page is flushed before the cursor moves past it."""
        if self._cursor != f"mlflow/{parent.id}":
            self._open(f"mlflow/{parent.id}", parent)
        while points := self._store.points(self._run, self._last_id, PAGE):
            known = list(points if run.done else _until_unknown(points, attempts))
            for point in known:
                if not _sound(point) or (point.stage, point.attempt) not in attempts:
                    self._leave_out(point)
                    continue
                self._note(point)
                shown = attempts[point.stage, point.attempt]
                outbox.post(shown, _metric(point, fields.name(point.key)))
            outbox.flush()
            if known:
                self._last_id = known[-1].id
                self._store.set_cursor(self._cursor, self._last_id)
            if len(known) < len(points):
                break  # of an attempt that the next pass will know
        for stage in run.stages.values():
            self._release(stage, parent, outbox)
        outbox.flush()

    def _leave_out(self, point: Point) -> None:
        """Say once that what is no point, or is of no attempt, is not shown."""
        if not self._left_out:
            logger.warning("points that are none are left out, the first: %.300r", point)
        self._left_out += 1

    def forget(self) -> None:
        """Go back to the cursor: a page that broke off will be counted again."""
        self._cursor = ""
        self._curves.clear()
        self._unshown.clear()
        self._lines.clear()

    def headline(
        self, stage: str, metrics: Mapping[str, float], at: float, number: int | None = None
    ) -> list[MetricPoint]:
        """Return the metrics that a stage ended with, for attempt `number` or for the run.

        Where a curve has the same name, they stand one step after its end: MLflow shows the last
        step, and the curve keeps one value a step.
        """
        prefix = f"{stage}/" if number is None else ""
        ends: dict[str, int] = {}
        for (name, attempt, key), curve in self._curves.items():
            if name == stage and number in {None, attempt}:
                ends[key] = max(curve.step + 1, ends.get(key, 0))
        return [
            MetricPoint(fields.name(f"{prefix}{key}"), value, ends.get(key, 0), round(at * 1000))
            for key, value in metrics.items()
        ]

    def _open(self, cursor: str, parent: MlflowRun) -> None:
        """Go to where the writing stopped, and learn how far the curves had come there.

        Of the points themselves those alone are read that the run does not show yet.
        """
        at = self._store.cursor(cursor)
        for curve in self._store.curves(self._run, at):
            place = (curve.stage, curve.attempt, curve.key)
            self._curves[place] = _AttemptCurve(max(curve.step, 0), curve.points)
            if curve.stage not in self._training:
                continue
            reached = parent.reached(fields.name(f"{curve.stage}/{curve.key}"))
            self._lines[curve.stage, curve.key] = _RunCurve(top=reached)
            if curve.step > reached:
                self._hold(curve, self._store.curve_points(self._run, curve, reached, at))
        self._cursor, self._last_id = cursor, at

    def _hold(self, curve: Curve, points: Sequence[Point]) -> None:
        """Hold the last `points` of a curve back that stand for it."""
        first = curve.points - len(points)
        chosen = [p for n, p in enumerate(points, first) if _stands(n) and _sound(p)]
        self._unshown.setdefault((curve.stage, curve.attempt), []).extend(chosen)

    def _note(self, point: Point) -> None:
        """Count a point, and hold it back where it may belong to the run."""
        place = (point.stage, point.attempt)
        chosen = self._curves.setdefault((*place, point.key), _AttemptCurve()).add(point)
        if chosen and point.stage in self._training:
            self._unshown.setdefault(place, []).append(point)

    def _release(self, stage: StageRun, parent: MlflowRun, outbox: Outbox) -> None:
        """Write to the run what can't be superseded any more; drop what has been."""
        for attempt in stage.attempts:
            held = self._unshown.pop((stage.name, attempt.number), None)
            if not held:
                continue
            safe, superseded = _reach(stage, attempt)
            rest = [point for point in held if not self._show(point, safe, parent, outbox)]
            if rest and not superseded:
                self._unshown[stage.name, attempt.number] = rest

    def _show(self, point: Point, safe: float, parent: MlflowRun, outbox: Outbox) -> bool:
        """Write a point to the run if its step is `safe`; return whether it was."""
        if point.step > safe:
            return False
        line = self._lines.setdefault((point.stage, point.key), _RunCurve())
        name = fields.name(f"{point.stage}/{point.key}")
        if line.add(point.attempt, point.step) and point.step > parent.reached(name):
            outbox.post(parent, _metric(point, name))
        return True


def _reach(stage: StageRun, attempt: Attempt) -> tuple[float, bool]:
    """Return up to which step an attempt's points stay, and whether later ones are superseded."""
    later = [a for a in stage.attempts if a.number > attempt.number and has_begun(a)]
    if later:
        return min(-math.inf if a.resumed is None else a.resumed for a in later), True
    if stage.done:
        return math.inf, False
    return max(attempt.saved, default=-math.inf), False


def _sound(point: Point) -> bool:
    """Whether it is a point: a database may hold anything in any column."""
    return type(point.step) is int and isinstance(point.value, float | int) and bool(point.key)


def _until_unknown(points: Sequence[Point], attempts: Attempts) -> Iterator[Point]:
    for point in points:
        if (point.stage, point.attempt) not in attempts:
            return
        yield point


def _metric(point: Point, name: str) -> MetricPoint:
    return MetricPoint(name, point.value, point.step, round(point.at * 1000))
