"""Metrics of what a command prints: lines of JSON, or what patterns find."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from math import isfinite

from jobs.commands.processes import Line
from orchestrator.job import JobContext

_STEP = "step"


class MetricPatterns:
    """What reads metrics from lines of the first process, and hands them on."""

    def __init__(self, patterns: Sequence[str], ctx: JobContext) -> None:
        """Read by `patterns`; without any, lines that are JSON objects.

        Raises:
            ValueError: One is no regular expression, or has no groups of a step and a metric.
        """
        self._ctx = ctx
        self._patterns = [_compiled(pattern) for pattern in patterns]
        self.last: dict[str, float] = {}

    def read(self, line: Line) -> None:
        """Hand on the metrics of a line, if it has any."""
        if line.process:
            return
        values = self._values(line.text)
        step = values.pop(_STEP, None)
        if step is None or step < 0 or not values:
            return
        finite = {name: value for name, value in values.items() if isfinite(value)}
        self.last |= finite
        self._ctx.metrics(values, step=int(step))

    def _values(self, text: str) -> dict[str, float]:
        if not self._patterns:
            return _of_json(text)
        values: dict[str, float] = {}
        for pattern in self._patterns:
            match = pattern.search(text)
            if match:
                values |= _numbers(match.groupdict())
        return values


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"metrics: {pattern!r} is no regular expression: {error}") from error
    if _STEP not in compiled.groupindex or len(compiled.groupindex) == 1:
        how = "name a group (?P<step>...) and one for each metric, as (?P<loss>...)"
        raise ValueError(f"metrics: {pattern!r} finds no metrics of a step; {how}")
    return compiled


def _of_json(text: str) -> dict[str, float]:
    if not text.startswith("{"):
        return {}
    try:
        said = json.loads(text)
    except ValueError:
        return {}
    plain = said if isinstance(said, dict) else {}
    return _numbers({k: v for k, v in plain.items() if not isinstance(v, bool | str)})


def _numbers(said: Mapping[str, object]) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, value in said.items():
        try:
            values[name] = float(str(value).replace(",", ""))
        except ValueError:
            continue
    return values
