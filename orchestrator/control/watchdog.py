"""Whether the job of a worker still lives: its signs of life, and who watches for them.

The job's thread leaves a sign with every call of its context. Silence counts from the first step
on: what a job does before that, imports and compiles, takes as long as it takes.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from types import FrameType

from orchestrator.messages import Alive
from orchestrator.ports import Clock

ALIVE_SECONDS = 1.0
# Who was not even able to look for so long was stopped together with the job.
STOPPED_SECONDS = 5.0
_OURS = ("orchestrator.", "threading.")


@dataclass(slots=True)
class Pulse:
    """The last sign of life of a job, seconds since the epoch; `None` before its first."""

    at: float | None = None

    def beat(self, now: float) -> None:
        """Leave a sign of life."""
        self.at = now


@dataclass(frozen=True, slots=True)
class Hang:
    """A job that gives no sign since `at` (seconds, epoch); `stack` tells where it is."""

    at: float
    line: str
    stack: str


class Watchdog:
    """Watches the thread of a job from beside it; `step` tells the last step that it named."""

    def __init__(
        self, pulse: Pulse, clock: Clock, thread: Thread, step: Callable[[], int | None]
    ) -> None:
        """Begin to watch."""
        self._pulse, self._clock, self._thread, self._step = pulse, clock, thread, step
        self._looked = self._told = clock.now()

    def alive(self, rank: int) -> list[Alive]:
        """Return a sign of life of this worker, when one is due."""
        now = self._clock.now()
        if now - self._told < ALIVE_SECONDS:
            return []
        self._told = now
        return [Alive(rank, self._step())]

    def hang(self, seconds: float | None) -> Hang | None:
        """Return what is known of a hang: no sign for more than `seconds` after a first step."""
        now, before = self._clock.now(), self._looked
        self._looked = now
        step, last = self._step(), self._pulse.at
        if seconds is None or step is None or last is None:
            return None
        if now - before > STOPPED_SECONDS:
            self._pulse.beat(now)
            return None
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - of all threads
        if now - last <= seconds or frame is None:
            return None
        where, stack = _told(frame)
        line = f"no sign of life for {seconds:g} s after step {step}; the job is in {where}"
        return Hang(last, line, stack)


def _told(frame: FrameType) -> tuple[str, str]:
    """Return where `frame` is, and the stack that led there, from the job's own frames on."""
    frames = list(traceback.walk_stack(frame))
    frames.reverse()
    names = [str(one.f_globals.get("__name__", "")) for one, _ in frames]
    first = next((i for i, name in enumerate(names) if not f"{name}.".startswith(_OURS)), 0)
    stack = traceback.StackSummary.extract(iter(frames[first:]))
    last = stack[-1]
    return f"{last.filename}:{last.lineno} {last.name}", "".join(stack.format()).rstrip()
