"""A trace of some steps by torch's profiler, shown with the attempt: `{step: 50, steps: 3}`.

The trace is in Chrome's format, which Perfetto opens, and has the events that take time: no arrows
between them, no instants, no arguments. A report has a bound, so the shortest events are left out
where all of them are too many, and that is told.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from jobs.training.tagged_config import number
from orchestrator.job import JobContext

REPORT = "trace.json"
MOST = 900_000  # characters of a trace
_KEPT = ("ph", "cat", "name", "pid", "tid", "ts", "dur")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfiledSteps:
    """Which steps are traced: from `step` on, counted from 1, so many."""

    step: int
    steps: int = 1


def profiled_steps(config: Mapping[str, object] | None, last: int) -> ProfiledSteps | None:
    """Return which steps a config has traced, of `last` in all.

    Raises:
        ValueError: It says no such thing.
    """
    if not config:
        return None
    for key in config.keys() - {"step", "steps"}:
        raise ValueError(f"profile has no field {key!r}; it has step, steps")
    if "step" not in config:
        raise ValueError("profile has no step: say the first one that is traced, as {step: 50}")
    first, count = (
        int(number(f"profile.{key}", config.get(key, 1), most=float("inf"), whole=True))
        for key in ("step", "steps")
    )
    if not first or not count:
        raise ValueError(
            f"profile={dict(config)!r}: steps count from 1, and there is one at least"
        )
    if first > last:
        raise ValueError(
            f"profile.step={first!r} is beyond the last step, {last!r}: trace an earlier one"
        )
    return ProfiledSteps(step=first, steps=count)


class StepProfiler:
    """Traces steps of the first worker."""

    def __init__(self, ctx: JobContext, steps: ProfiledSteps | None) -> None:
        """Trace `steps`, or none."""
        self._ctx = ctx
        self._steps = steps if ctx.rank == 0 else None
        self._running: Any = None
        self._overhead = 0.0

    def overhead(self) -> float:
        """Return the seconds that were spent on tracing since this was asked last."""
        seconds, self._overhead = self._overhead, 0.0
        return seconds

    @contextmanager
    def step(self, number: int, last: int) -> Iterator[None]:
        """Do step `number` in this context, of `last` in all; after the last the trace is told."""
        steps = self._steps
        if steps is None:
            yield
            return
        began = time.perf_counter()
        if self._running is None:
            self._begin(steps, number)
        self._overhead += time.perf_counter() - began
        try:
            yield
        except BaseException:
            if self._running is not None:
                self._running.stop()
            raise
        if self._running is not None and number >= min(steps.step + steps.steps - 1, last):
            began = time.perf_counter()
            running, self._running, self._steps = self._running, None, None
            running.stop()
            self._tell(running, number)
            self._overhead += time.perf_counter() - began

    def _begin(self, steps: ProfiledSteps, number: int) -> None:
        """Begin to trace where it is time; say so where that is past."""
        if number == steps.step:
            self._running = torch.profiler.profile(
                activities=torch.profiler.supported_activities()  # type: ignore[no-untyped-call] # torch has no types of it
            )
            self._running.start()
        elif number > steps.step:
            self._steps = None
            self._ctx.log(
                f"no step is traced: profile.step={steps.step!r}, and this attempt goes on from "
                f"step {number - 1}"
            )

    def _tell(self, running: Any, step: int) -> None:  # noqa: ANN401 - torch's profiler
        with self._ctx.busy("writing the trace"), TemporaryDirectory() as folder:
            file = Path(folder, REPORT)
            running.export_chrome_trace(str(file))
            events = json.loads(file.read_bytes())["traceEvents"]
        text, missing = shortened(events)
        self._ctx.report(REPORT, text)
        left_out = f"; the {missing:,} shortest events are left out" if missing else ""
        self._ctx.log(f"steps up to {step} are traced: see {REPORT}, by ui.perfetto.dev{left_out}")


def shortened(events: list[dict[str, Any]], most: int = MOST) -> tuple[str, int]:
    """Return a trace of at most so many characters, and how many events are missing in it."""
    kept = [e for e in events if e.get("ph") == "M"]  # names of processes and threads
    timed = sorted((e for e in events if e.get("ph") == "X"), key=lambda e: -e.get("dur", 0))
    texts = [json.dumps({k: e[k] for k in _KEPT if k in e}) for e in timed]
    room = most - len(json.dumps(kept)) - 100
    count = 0
    while count < len(texts) and room > len(texts[count]):
        room -= len(texts[count]) + 1
        count += 1
    lines = ",".join([*map(json.dumps, kept), *texts[:count]])
    return f'{{"traceEvents":[{lines}]}}', len(texts) - count
