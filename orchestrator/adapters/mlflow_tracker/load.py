"""The load of this machine, sampled while a run goes on.

Only what is truly measured: the host of the controller, and the processes of pools that run on
it. Figures of the host are named so, and never stand for those of a chip.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.adapters.mlflow_tracker.experiment import MetricPoint
from orchestrator.error_boundary import BestEffort
from orchestrator.ports import Clock

if TYPE_CHECKING:
    import psutil

_KEPT = 20_000
_GB = 1e9


class Sampler:
    """A thread that samples every `seconds`; points that nobody takes are dropped, oldest first.

    `pools` has the id of the process whose descendants make up a pool on this machine.
    """

    def __init__(self, clock: Clock, seconds: float, pools: Mapping[str, int]) -> None:
        """Start the thread, unless `seconds` is 0."""
        self._clock, self._seconds = clock, seconds
        self._pools = dict(pools)
        self._processes: dict[int, psutil.Process] = {}
        self._points: deque[MetricPoint] = deque(maxlen=_KEPT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="load", daemon=True)
        if seconds > 0:
            self._thread.start()

    def take(self) -> list[MetricPoint]:
        """Return the points since the last call."""
        return [self._points.popleft() for _ in range(len(self._points))]

    def put_back(self, points: Sequence[MetricPoint]) -> None:
        """Keep points for later, because they could not be written."""
        self._points.extendleft(reversed(points))

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()

    def _work(self) -> None:
        import psutil

        best_effort = BestEffort()
        psutil.cpu_percent()  # the first call of each only starts the clock
        best_effort.tell("samples were not begun", lambda: dict(self._of_pools()))
        while not self._stop.wait(self._seconds):
            best_effort.tell("samples of the load of this machine were not taken", self._sample)

    def _sample(self) -> None:
        import psutil

        at = round(self._clock.now() * 1000)
        values = {
            "system/host/cpu_percent": psutil.cpu_percent(),
            "system/host/memory_gb": psutil.virtual_memory().used / _GB,
            **dict(self._of_pools()),
        }
        self._points.extend(MetricPoint(key, v, 0, at) for key, v in values.items())

    def _of_pools(self) -> Iterator[tuple[str, float]]:
        for pool, pid in self._pools.items():
            percent = size = 0.0
            for process in self._family(pid):
                used, held = _measure(process)
                percent += used
                size += held
            yield f"system/{pool}/host_cpu_percent", percent
            yield f"system/{pool}/host_memory_gb", size / _GB

    def _family(self, pid: int) -> Iterator[psutil.Process]:
        """Yield a process and its descendants, the same objects each time: they keep count."""
        import psutil

        try:
            root = psutil.Process(pid)
            members = [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in members:
            yield self._processes.setdefault(member.pid, member)


def _measure(process: psutil.Process) -> tuple[float, float]:
    """Return percent of a core and own bytes; nothing for a process that has ended."""
    import psutil

    try:
        memory = process.memory_info()
        return process.cpu_percent(), memory.rss - getattr(memory, "shared", 0)
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0, 0.0
