"""Metrics of what a command prints, lines of JSON or what patterns find, and of its files."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from time import monotonic
from typing import Protocol

from jobs.commands.json_lines import numbers, of_json
from jobs.commands.processes import LONGEST, Line
from orchestrator.job import JobContext

_STEP = "step"
_LAST_STEP = 2**63 - 1
_LONGEST_NAME = 250  # characters, as MLflow takes them
_MOST_RESULTS = 1_000  # metrics that a stage may have
_UNMATCHED_SECONDS = 300.0  # since its first line, in which a script begins to train


class MetricFiles(Protocol):
    """Files with metrics that a command writes."""

    problems: list[str]

    @property
    def lacking(self) -> str:
        """What has not been seen, in words; empty where metrics were."""
        ...

    def read(self, *, last: bool = False) -> Iterator[tuple[int, dict[str, float]]]:
        """Yield steps with the metrics that are new since the last look, some seconds ago."""
        ...


class MetricPatterns:
    """What reads metrics from lines of one process, and hands them on.

    That is the first whose lines have any: of most trainers rank 0 prints them, of Megatron the
    last one, and a script that prints them in each process tells each of them once.
    """

    def __init__(self, patterns: Sequence[str], ctx: JobContext, *, of_lines: bool = True) -> None:
        """Read by `patterns`; without any, lines that are JSON objects. Or no lines at all."""
        self._ctx, self._of_lines = ctx, of_lines
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._unmatched = dict.fromkeys(patterns)  # those that have fitted no line
        self._tell_at: float | None = None
        self._process: int | None = None
        self._notices: set[str] = set()
        self.last: dict[str, float] = {}

    def read(self, line: Line) -> None:
        """Hand on the metrics of a line, if it has any."""
        if self._tell_at is None:
            self._tell_at = monotonic() + _UNMATCHED_SECONDS
        if not self._of_lines or self._process not in {None, line.process}:
            return
        values = self._values(line.text)
        step = values.pop(_STEP, math.nan)
        if isfinite(step) and self.hand_on(int(step), values):
            self._process = line.process

    def tell_unmatched(self, *, last: bool = False) -> None:
        """Say which patterns fit no line: once while the command runs, and at its end."""
        due = self._tell_at is not None and monotonic() >= self._tell_at
        if self._ctx.rank or not self._unmatched or not (due or last):
            return
        self._tell_at = math.inf
        names = ", ".join(map(repr, self._unmatched))
        whose = " of the first worker" if self._ctx.world_size > 1 else ""
        so_far = "" if last else " so far"
        self._ctx.log(
            f"no line{whose}{so_far} fits {names} of `metrics`: mend it, or leave it out"
        )

    def hand_on(self, step: int, values: Mapping[str, float]) -> bool:
        """Hand on metrics of a step, and keep the last of each that is a finite number.

        What no context takes is told once and left out; return whether anything was handed on.
        """
        if values and not 0 <= step <= _LAST_STEP:
            self._tell("metrics of a step below 0 or beyond 64 bits are left out", str(step))
            return False
        named = {name: value for name, value in values.items() if _is_name(name)}
        if len(named) < len(values):
            unnamed = next(name for name in values if name not in named)
            what = f"a metric is left out whose name has not 1 to {_LONGEST_NAME} characters"
            self._tell(what, repr(unnamed[:_LONGEST_NAME]))
        if named:
            self._keep({name: value for name, value in named.items() if isfinite(value)})
            self._ctx.metrics(named, step=step)
        return bool(named)

    def _keep(self, values: Mapping[str, float]) -> None:
        room = _MOST_RESULTS - len(self.last)
        new = [name for name in values if name not in self.last]
        if len(new) > room:
            what = f"of more than {_MOST_RESULTS} metrics the others are no results of the stage"
            self._tell(what, repr(new[room]))
        lost = set(new[room:])
        self.last |= {name: value for name, value in values.items() if name not in lost}

    def _tell(self, what: str, which: str) -> None:
        """Say once what is left out."""
        if what not in self._notices:
            self._notices.add(what)
            self._ctx.log(f"{what}: {which}")

    def _values(self, text: str) -> dict[str, float]:
        if not self._patterns:
            if text.startswith("{") and len(text.encode(errors="replace")) >= LONGEST - 1:
                what = f"metrics in a line of {LONGEST:,} bytes or more are not read"
                self._tell(what, f"{text[:60]}...")
            return of_json(text)
        values: dict[str, float] = {}
        for pattern in self._patterns:
            match = pattern.search(text)
            if match:
                self._unmatched.pop(pattern.pattern, None)
                values |= numbers(match.groupdict())
        return values


def _is_name(name: str) -> bool:
    """Whether a name is none too many for the tracker, written as text that is valid."""
    plain = name.encode(errors="backslashreplace").decode().replace("\0", r"\x00")
    return 1 <= len(plain) <= _LONGEST_NAME
