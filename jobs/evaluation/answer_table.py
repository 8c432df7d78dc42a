"""A table of answers that a tracker shows: CSV, as MLflow's own page of artifacts draws it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence

NAME = "answers.csv"
_ROWS, _LONGEST = 500, 400  # as many as MLflow shows; characters of a cell


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return the first rows as CSV; long texts are cut."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else ())
    writer.writerows([_cell(value) for value in row.values()] for row in rows[:_ROWS])
    return text.getvalue()


def _cell(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
