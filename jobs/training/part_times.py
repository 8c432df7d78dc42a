"""How long the parts of a training step take: by the clock of the host, or of the chip.

What a chip does is queued: there, events in its queue tell when a part began and ended, and are
read when the times are, not before. Reductions that run beside the backward pass count as that.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

Part = Literal["data", "forward", "backward", "communication", "optimizer", "checkpoint"]
_ON_HOST = frozenset({"data", "checkpoint"})
_MILLI = 1e-3
_MOST_EVENTS = 1000  # that wait to be read


class PartTimes:
    """Seconds that each part took since they were taken last."""

    def __init__(self, device: torch.device | None = None) -> None:
        """Measure on the chip `device`; by the host's clock where there is none."""
        on_host = device is None or device.type == "cpu"
        self._chip: Any = None if on_host or device is None else torch.get_device_module(device)
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._events: list[tuple[str, Any, Any]] = []

    @contextmanager
    def part(self, name: Part) -> Iterator[None]:
        """Count what is done in this context as part `name`."""
        if self._chip is not None and name not in _ON_HOST:
            begin, end = (self._chip.Event(enable_timing=True) for _ in range(2))
            begin.record()
            yield
            end.record()
            self._events.append((name, begin, end))
            if len(self._events) >= _MOST_EVENTS:
                self._read_finished()
            return
        began = time.perf_counter()
        yield
        self._seconds[name] += time.perf_counter() - began

    def take(self) -> dict[str, float]:
        """Return the seconds of each part, and begin anew."""
        if self._events:
            self._chip.synchronize()
        self._read_finished()
        seconds = dict(self._seconds)
        self._seconds.clear()
        return seconds

    def _read_finished(self) -> None:
        """Add up the events that the chip has come to, which come in their order."""
        waiting = iter(self._events)
        self._events = []
        for name, begin, end in waiting:
            if not end.query():
                self._events = [(name, begin, end), *waiting]
                return
            self._seconds[name] += begin.elapsed_time(end) * _MILLI
