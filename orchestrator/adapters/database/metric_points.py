"""Metric points, and how far those who read them have come. What is no point is left out.

The worker refuses what is no point as the job's error. This is for what comes from elsewhere, and
for rows of earlier versions: SQLite keeps any type in any column.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

from sqlalchemy import func, select

from orchestrator.adapters.database import schema
from orchestrator.adapters.database.dialects import BulkInsert
from orchestrator.adapters.database.schema import cursors
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.errors import UnstorableError
from orchestrator.core.text import valid
from orchestrator.messages import Points
from orchestrator.ports import Curve, Point

logger = logging.getLogger(__name__)

Row = tuple[str, str, int, str, float | None, int, float]
_COLUMNS = ("run", "stage", "attempt", "key", "value", "step", "at")
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class SqlMetricPoints(Transactions):
    """The port `MetricPoints`."""

    def add_points(self, run: str, stage: str, attempt: int, points: Sequence[Points]) -> None:
        """Commit metric points; a point that is there already is not added again.

        Raises:
            UnstorableError: Some are no points; all others are stored.
        """
        rows, problems = _rows_of((run, stage, attempt), points)
        if rows:
            with self._writing() as connection:
                self._bulk.into(connection, rows)
        if problems:
            message = f"{len(problems)} metric points can't be stored, the first: {problems[0]}"
            raise UnstorableError(message)

    def points(self, run: str, after: int = 0, limit: int = 10_000) -> Sequence[Point]:
        """Return metric points of `run` with an id above `after`, by id."""
        query = select(schema.points).order_by(schema.points.c.id).limit(limit)
        while True:
            wanted = (schema.points.c.run == run) & (schema.points.c.id > after)
            with self._reading() as connection:
                rows = connection.execute(query.where(wanted)).all()
            points = _points_of(run, rows)
            if points or not rows:
                return points
            after = rows[-1].id

    def curves(self, run: str, upto: int) -> Sequence[Curve]:
        """Return the curves that the points of `run` up to id `upto` make, the first one first."""
        table = schema.points.c
        place = (table.stage, table.attempt, table.key)
        ours = (table.run == run) & (table.id <= upto) & (table.step <= _HIGHEST)
        query = select(*place, func.count(), func.max(table.step)).where(ours).group_by(*place)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(func.min(table.id))).all()
        return [
            Curve(stage=stage, attempt=attempt, key=key, points=points, step=step)
            for stage, attempt, key, points, step in rows
        ]

    def curve_points(self, run: str, curve: Curve, above: float, upto: int) -> Sequence[Point]:
        """Return the points of a curve at steps `above`, up to id `upto`, by id."""
        table = schema.points.c
        place = (table.run == run) & (table.stage == curve.stage)
        ours = place & (table.attempt == curve.attempt) & (table.key == curve.key)
        if above >= _LOWEST:
            ours &= table.step > math.floor(above)
        query = select(schema.points).where(ours & (table.id <= upto)).order_by(table.id)
        with self._reading() as connection:
            return _points_of(run, connection.execute(query).all())

    def cursor(self, name: str) -> int:
        """Return the number kept under `name`; 0 when there is none."""
        with self._reading() as connection:
            return connection.scalar(select(cursors.c.value).where(cursors.c.name == name)) or 0

    def set_cursor(self, name: str, value: int) -> None:
        """Keep `value` under `name`."""
        added = self._insert(cursors).values(name=name, value=value)
        with self._writing() as connection:
            connection.execute(
                added.on_conflict_do_update(index_elements=["name"], set_={"value": value})
            )

    @cached_property
    def _bulk(self) -> BulkInsert:
        return BulkInsert(self._reader, schema.points, _COLUMNS)


def _rows_of(place: tuple[str, str, int], points: Iterable[Points]) -> tuple[list[Row], list[str]]:
    """Return the rows of `points` at `place` (run, stage, attempt), and what is wrong with others.

    SQLite keeps NaN as NULL; so do we, everywhere.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for item in points:
        try:
            step = item.step if type(item.step) is int else operator.index(item.step)
            at = float(item.at)
        except (TypeError, ValueError) as error:
            problems.append(f"step {str(item.step)[:80]!r}: {error}")
            continue
        if not _LOWEST <= step <= _HIGHEST:
            problems.append(f"step {step!r} has more than 64 bits"[:200])
            continue
        for key, value in item.values.items():
            try:
                number = value if type(value) is float else float(value)
                rows.append((*place, valid(key), None if math.isnan(number) else number, step, at))
            except (TypeError, ValueError, OverflowError) as error:
                problems.append(f"metric {str(key)[:80]!r} at step {step!r}: {error}")
    return rows, problems


def _points_of(run: str, rows: Sequence[Any]) -> list[Point]:
    """Return the points of `rows` of table `points`."""
    points = [
        Point(
            id=id_,
            run=run,
            stage=stage,
            attempt=attempt,
            key=key,
            value=math.nan if value is None else value,
            step=step,
            at=at,
        )
        for id_, _, stage, attempt, key, value, step, at in rows
        if type(step) is int and isinstance(value, float | int | None) and isinstance(key, str)
    ]
    if len(points) < len(rows):
        left = len(rows) - len(points)
        logger.warning("%d rows of run %r are no metric points, and are left out", left, run)
    return points
