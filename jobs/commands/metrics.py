"""Metrics of what a command prints, lines of JSON or what patterns find, and of event files."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite

from jobs.commands.processes import Line
from orchestrator.job import JobContext

_STEP = "step"


class MetricPatterns:
    """What reads metrics from lines of one process, and hands them on.

    That is the first whose lines have any: of most trainers rank 0 prints them, of Megatron the
    last one, and a script that prints them in each process tells each of them once.
    """

    def __init__(self, patterns: Sequence[str], ctx: JobContext) -> None:
        """Read by `patterns`; without any, lines that are JSON objects."""
        self._ctx = ctx
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._process: int | None = None
        self.last: dict[str, float] = {}

    def read(self, line: Line) -> None:
        """Hand on the metrics of a line, if it has any."""
        if self._process not in {None, line.process}:
            return
        values = self._values(line.text)
        step = values.pop(_STEP, -1.0)
        if step >= 0 and isfinite(step) and values:
            self._process = line.process
            self.hand_on(int(step), values)

    def hand_on(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on metrics of a step, and keep the last of each that is a finite number."""
        if step >= 0 and values:
            self.last |= {name: value for name, value in values.items() if isfinite(value)}
            self._ctx.metrics(values, step=step)

    def _values(self, text: str) -> dict[str, float]:
        if not self._patterns:
            return _of_json(text)
        values: dict[str, float] = {}
        for pattern in self._patterns:
            match = pattern.search(text)
            if match:
                values |= _numbers(match.groupdict())
        return values


def _of_json(text: str) -> dict[str, float]:
    if not text.startswith("{"):
        return {}
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    plain = said if isinstance(said, dict) else {}
    return _numbers({k: v for k, v in plain.items() if not isinstance(v, bool | str)})


def _numbers(fields: Mapping[str, object]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, value in fields.items():
        try:
            values[name] = float(str(value).replace(",", ""))
        except ValueError:
            continue
    return values
