"""Metric points as rows, and back: what is no point is left out, and told once.

The worker refuses what is no point as the job's error. This is for what comes from elsewhere, and
for rows of earlier versions: SQLite keeps any type in any column.
"""

from __future__ import annotations

import logging
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.core.text import valid
from orchestrator.messages import Points
from orchestrator.ports import Point

logger = logging.getLogger(__name__)

Row = tuple[str, str, int, str, float | None, int, float]
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


def rows_of(place: tuple[str, str, int], points: Iterable[Points]) -> tuple[list[Row], list[str]]:
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


def points_of(run: str, rows: Sequence[Any]) -> list[Point]:
    """Return the points of `rows` of table `points`."""
    found = [
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
    if len(found) < len(rows):
        left = len(rows) - len(found)
        logger.warning("%d rows of run %r are no metric points, and are left out", left, run)
    return found
