"""What a job says, on its way from the job's thread to whoever reads the attempt.

Writing never waits for the reader. Metric points are all kept; of progress only the latest
counts; of log lines there is a limit, so that a job that prints in a loop fills no memory.

Telling of a step must cost the job next to nothing, and after a step that has filled the caches
each line of code that runs is dear. So the job's thread only puts plain values down, by calls
that are atomic; the reader makes messages of them, many at a time.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeAlias

from orchestrator.core.text import valid
from orchestrator.messages import (
    Failed,
    LogLine,
    Message,
    Points,
    Progress,
    Report,
    Resumed,
    Saved,
    Succeeded,
)
from orchestrator.worker.native_output import NativeOutput

MOST_LINES = 10_000
_Entry: TypeAlias = LogLine | Report | Resumed | Saved | tuple[int, Mapping[str, float], float]


class MessageQueue:
    """Messages that wait to be read, and the outcome, which comes once and last.

    With `native`, what the process of worker `rank` writes are lines too, in one order with what
    the job prints.
    """

    def __init__(self, rank: int = 0, native: NativeOutput | None = None) -> None:
        """Begin empty."""
        self._rank, self._native = rank, native
        self._waiting: deque[_Entry] = deque()
        self._progress: tuple[int, int] | None = None
        self._read_progress: tuple[int, int] | None = None
        self._lock = threading.RLock()  # of lines alone; what is freed meanwhile may print
        self._lines = 0
        self._lost = 0
        self._lost_rank = 0
        self._outcome: tuple[Message, ...] = ()
        self._unfinished = threading.Lock()
        self._unfinished.acquire()

    def points(self, step: int, values: Mapping[str, float], at: float) -> None:
        """Add metric points, recorded at `at` (seconds, epoch); `values` is not changed later."""
        self._waiting.append((step, values, at))

    def say(self, message: Report | Resumed | Saved) -> None:
        """Add what happened to the checkpoints, or what the job shows."""
        self._waiting.append(message)

    def progress(self, done: int, total: int) -> None:
        """Say how far the job is now."""
        self._progress = (done, total)

    def line(self, line: LogLine) -> None:
        """Add a line, or count it as lost when nobody reads."""
        if self._native is None or not self._native.write(line.text):
            self._keep(line)

    def _keep(self, line: LogLine) -> None:
        with self._lock:
            if self._lines < MOST_LINES:
                self._waiting.append(line)
                self._lines += 1
            else:
                self._lost += 1
                self._lost_rank = line.rank

    def finish(self, outcome: Succeeded | Failed) -> None:
        """Add the outcome; nothing follows."""
        self._outcome = (outcome,)
        self._unfinished.release()

    def wait(self, seconds: float) -> bool:
        """Wait for the outcome, at most for `seconds`; return whether it is there."""
        if not self._outcome and self._unfinished.acquire(timeout=seconds):
            self._unfinished.release()
        return bool(self._outcome)

    def drain(self) -> list[Message]:
        """Take out all that is there but the outcome, oldest first."""
        if self._native is not None:
            for text in self._native.rest() if self._outcome else self._native.lines():
                self._keep(LogLine(self._rank, text))
        with self._lock:
            taken = [_message(self._waiting.popleft()) for _ in range(len(self._waiting))]
            self._lines = 0
            if self._lost:
                text = f"{self._lost} lines were not kept: printed faster than they are read"
                taken.append(LogLine(self._lost_rank, text))
                self._lost = 0
        progress = self._progress
        if progress is not None and progress is not self._read_progress:
            taken.append(Progress(*progress))
            self._read_progress = progress
        return taken

    def last(self) -> list[Message]:
        """Take out what is left, the outcome at its end; only once that is there."""
        return [*self.drain(), *map(valid_message, self._outcome)]


def _message(entry: _Entry) -> Message:
    return Points(*entry) if isinstance(entry, tuple) else valid_message(entry)


def valid_message(message: Message) -> Message:
    """Return `message` with text that whoever reads it can keep; nothing else leaves a worker.

    Names of metrics were made valid where the job gave them.
    """
    match message:
        case LogLine(rank=rank, text=text):
            return LogLine(rank, valid(text))
        case Report(name=name, text=text):
            return Report(valid(name), valid(text))
        case Succeeded(artifact=artifact, metrics=metrics):
            return Succeeded(artifact, {valid(name): value for name, value in metrics.items()})
        case Failed(failure=failure):
            evidence, detail = valid(failure.evidence), valid(failure.detail)
            return replace(message, failure=replace(failure, evidence=evidence, detail=detail))
    return message
