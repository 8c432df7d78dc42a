"""Whether the job of a worker still lives: its signs of life, and who watches for them.

The job's thread leaves a sign with every call of its context. Silence counts from the first step
on: what a job does before that, imports and compiles, takes as long as it takes. Silence alone is
no hang. The job must stand at one place all the while, and its process do nothing; one that works
on without a word, as in a collective that spins, gets several times as long.
"""

from __future__ import annotations

import statistics
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Thread
from types import CodeType, FrameType
from weakref import WeakSet

from orchestrator.core.settings import PATIENT, AttemptSettings
from orchestrator.core.spec.policy import AUTO, Hanging
from orchestrator.messages import Alive
from orchestrator.ports import Clock
from orchestrator.worker.activity import Activity, measured

ALIVE_SECONDS = 1.0
# Who was not even able to look for so long was stopped together with the job.
STOPPED_SECONDS = 5.0
KNOWN_STEPS = 10  # of which the durations are known before a hang is measured by them
LOOKS = 8  # within the time that is a hang; those of its second half are compared
LONGEST_DETAIL = 16_000
_OURS = ("orchestrator.", "threading.")
_NOT_THE_JOBS = ("orchestrator.", "ray.", "threading.", "concurrent.", "asyncio.", "fsspec.")


class StepTimes:
    """One count of a job: the last step that it named, and when it came to each of the last."""

    __slots__ = ("_heartbeat", "_last", "_times")

    def __init__(self, heartbeat: Heartbeat) -> None:
        """Know of none."""
        self._heartbeat = heartbeat
        self._last: int | None = None
        self._times: deque[float | None] = deque(maxlen=102)

    def reached(self, step: int) -> None:
        """Take notice of a step, at the last sign of life; each step of the job pays for this."""
        if step != self._last:
            self._last = step
            self._times.append(self._heartbeat.at)

    def median(self) -> float:
        """Return how long a step takes, seconds; 0 as long as too few are known."""
        times = [at for at in list(self._times) if at is not None]
        known = [later - at for at, later in pairwise(times)]
        return statistics.median(known) if len(known) >= KNOWN_STEPS else 0.0


@dataclass(slots=True)
class Heartbeat:
    """The last sign of life of a job, by `Clock.monotonic`; `None` before its first.

    It also knows how long the job's steps take, and what the job is busy with.
    """

    at: float | None = None
    _busy: list[tuple[str, float]] = field(default_factory=list)
    _counts: list[StepTimes] = field(default_factory=list)

    def beat(self, now: float) -> None:
        """Leave a sign of life."""
        self.at = now

    def count(self) -> StepTimes:
        """Return a count of steps, by which a hang is measured too."""
        self._counts.append(StepTimes(self))
        return self._counts[-1]

    @contextmanager
    def busy(self, what: str, clock: Clock) -> Iterator[None]:
        """Be alive as long as this lasts, and when it ends."""
        entry = (what, clock.monotonic())
        self._busy.append(entry)
        try:
            yield
        finally:
            self._busy.remove(entry)
            self.beat(clock.monotonic())

    @property
    def busy_with(self) -> str:
        """What the job, or what it waits in, is busy with; empty where it shall give signs."""
        return self.busy_since[0]

    @property
    def busy_since(self) -> tuple[str, float]:
        """What it is busy with, and since when (`Clock.monotonic`); the innermost counts."""
        return (self._busy or [("", 0.0)])[-1]

    def bound(self, hang: Hanging, waits: AttemptSettings = PATIENT) -> float | None:
        """Return how many seconds of silence are a hang; `None` is none."""
        if hang != AUTO:
            return hang
        medians = [steps.median() for steps in self._counts]
        return max([waits.hang, *(waits.hang_steps * median for median in medians)])


@dataclass(frozen=True, slots=True)
class Hang:
    """A job that gives no sign since `at` (seconds, epoch); `stack` tells where it is."""

    at: float
    line: str
    stack: str


@dataclass(frozen=True, slots=True)
class _StackSample:
    """Where the job stood at `at`, by its functions, and what its process had done by then."""

    at: float
    place: tuple[CodeType, ...]
    activity: Activity


class Watchdog:
    """Watches the thread of a job from beside it; `step` tells the last step that it named."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        clock: Clock,
        thread: Thread,
        step: Callable[[], int | None],
        measure: Callable[[], Activity] = measured,
    ) -> None:
        """Begin to watch."""
        self._heartbeat, self._clock, self._thread, self._step = heartbeat, clock, thread, step
        self._measure = measure
        self._looked = self._last_sign = clock.monotonic()
        self._samples: list[_StackSample] = []
        self._strangers = WeakSet(threading.enumerate())  # a new thread may get an old number

    def alive(self, rank: int) -> list[Alive]:
        """Return a sign of life of this worker, when one is due."""
        now = self._clock.monotonic()
        if now - self._last_sign < ALIVE_SECONDS:
            return []
        self._last_sign = now
        busy, since = self._heartbeat.busy_since
        seconds = now - since if busy else 0.0
        return [Alive(rank, self._step(), self._clock.now(), busy, seconds)]

    def hang(self, hang: Hanging, waits: AttemptSettings = PATIENT) -> Hang | None:
        """Return what is known of a hang: silence, and a job that doesn't move, after a step."""
        now, before = self._clock.monotonic(), self._looked
        self._looked = now
        step, last, seconds = self._step(), self._heartbeat.at, self._heartbeat.bound(hang, waits)
        if seconds is None or step is None or last is None:
            return None
        if now - before > STOPPED_SECONDS or self._heartbeat.busy_with:
            self._heartbeat.beat(now)
            return None
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - of all threads
        if now - last <= seconds / 2 or frame is None:
            self._samples.clear()
            return None
        self._sample(frame, now, seconds)
        longest = seconds * waits.busy_factor
        late = now - last > longest
        if now - last <= seconds or not self._stands(late=late):
            return None
        return self._hang(frame, now - last, longest if late else seconds, step)

    def _sample(self, frame: FrameType, now: float, seconds: float) -> None:
        if self._samples and now - self._samples[-1].at < seconds / LOOKS:
            return
        place = tuple(inner.f_code for inner, _ in traceback.walk_stack(frame))
        self._samples.append(_StackSample(now, place, self._measure()))
        self._samples = [sample for sample in self._samples if now - sample.at <= seconds / 2]

    def _stands(self, *, late: bool) -> bool:
        """Whether the job was at one place in all samples, its process at rest unless `late`."""
        first, last = self._samples[0], self._samples[-1]
        if first is last or any(sample.place != first.place for sample in self._samples):
            return False
        return late or last.activity.rested_since(first.activity, last.at - first.at)

    def _hang(self, frame: FrameType, silent: float, seconds: float, step: int) -> Hang:
        where, stack = _place_of(frame)
        line = f"no sign of life for {seconds:g} s after step {step}; the job is in {where}"
        at = self._clock.now() - silent
        return Hang(at, line, "\n".join([stack, *self._others()])[:LONGEST_DETAIL])

    def _others(self) -> Iterator[str]:
        """Yield the stacks of the threads that the job has started."""
        frames = sys._current_frames()  # noqa: SLF001 - of all threads
        for thread in threading.enumerate():
            frame = frames.get(thread.ident or 0)
            if frame is None or thread is self._thread or thread in self._strangers:
                continue
            if _is_of_the_job(frame):
                yield f"Thread {thread.name!r}:\n{_place_of(frame)[1]}"


def _is_of_the_job(frame: FrameType) -> bool:
    names = (str(inner.f_globals.get("__name__", "")) for inner, _ in traceback.walk_stack(frame))
    return any(not f"{name}.".startswith(_NOT_THE_JOBS) for name in names)


def _place_of(frame: FrameType) -> tuple[str, str]:
    """Return where `frame` is, and the stack that led there, from the job's own frames on."""
    frames = list(traceback.walk_stack(frame))
    frames.reverse()
    names = [str(inner.f_globals.get("__name__", "")) for inner, _ in frames]
    first = next((i for i, name in enumerate(names) if not f"{name}.".startswith(_OURS)), 0)
    stack = traceback.StackSummary.extract(iter(frames[first:]))
    last = stack[-1]
    return f"{last.filename}:{last.lineno} {last.name}", "".join(stack.format()).rstrip()
