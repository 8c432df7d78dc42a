"""What the process of a worker, with its children, has done so far: CPU time, and bytes of I/O.

Read from `/proc`; where there is none, nothing is known, and nothing counts as done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

CPU_OF_REST = 0.05  # of one core: what threads that only wake up and look need
BYTES_OF_REST = 64_000  # a second
_PROC = Path("/proc")
_UTIME = 11  # place of `utime` behind the name of the command; `stime`, `cutime`, `cstime` follow


@dataclass(frozen=True, slots=True)
class Activity:
    """CPU time (seconds) and bytes that were read and written, since the process began."""

    cpu: float = 0.0
    io: int = 0

    def rested_since(self, earlier: Activity, seconds: float) -> bool:
        """Whether next to nothing was done in the `seconds` since `earlier`."""
        cpu, moved = self.cpu - earlier.cpu, self.io - earlier.io
        return cpu <= CPU_OF_REST * seconds and moved <= BYTES_OF_REST * seconds


def measured() -> Activity:
    """Return what this process and those below it have done so far."""
    activities = [_of(pid) for pid in _family(os.getpid())]
    return Activity(
        sum(activity.cpu for activity in activities), sum(activity.io for activity in activities)
    )


def _family(pid: int) -> Iterator[int]:
    """Yield `pid` and all processes below it that live."""
    yield pid
    for listed in (_PROC / str(pid) / "task").glob("*/children"):
        for child in _text(listed).split():
            yield from _family(int(child))


def _of(pid: int) -> Activity:
    fields = _text(_PROC / str(pid) / "stat").rpartition(")")[2].split()
    ticks = sum(map(int, fields[_UTIME : _UTIME + 4]))
    lines = (line.split(": ") for line in _text(_PROC / str(pid) / "io").splitlines())
    moved = sum(int(value) for name, value in lines if name in {"rchar", "wchar"})
    return Activity(ticks / os.sysconf("SC_CLK_TCK"), moved)


def _text(path: Path) -> str:
    with suppress(OSError):  # it has just ended, or is another's
        return path.read_text(encoding="ascii", errors="replace")
    return ""
