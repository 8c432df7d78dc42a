"""What a job says, on its way from the job's thread to whoever reads the attempt.

Writing never waits for the reader. Metric points are all kept; of progress only the latest
counts; of log lines there is a limit, so that a job that prints in a loop fills no memory.
"""

from __future__ import annotations

import threading

from orchestrator.messages import (
    Failed,
    LogLine,
    Message,
    Points,
    Progress,
    Resumed,
    Saved,
    Succeeded,
)

MOST_LINES = 10_000


class Outbox:
    """Messages that wait to be read, and the outcome, which comes once and last."""

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.RLock()  # what is freed meanwhile may print
        self._finished = threading.Event()
        self._messages: list[Message] = []
        self._progress: Progress | None = None
        self._lines = 0
        self._lost = 0
        self._lost_rank = 0
        self._outcome: tuple[Message, ...] = ()

    def points(self, points: Points) -> None:
        """Add metric points."""
        with self._lock:
            self._messages.append(points)

    def say(self, message: Resumed | Saved) -> None:
        """Add what happened to the checkpoints."""
        with self._lock:
            self._messages.append(message)

    def progress(self, progress: Progress) -> None:
        """Say how far the job is now."""
        with self._lock:
            self._progress = progress

    def line(self, line: LogLine) -> None:
        """Add a line, or count it as lost when nobody reads."""
        with self._lock:
            if self._lines < MOST_LINES:
                self._messages.append(line)
                self._lines += 1
            else:
                self._lost += 1
                self._lost_rank = line.rank

    def finish(self, outcome: Succeeded | Failed) -> None:
        """Add the outcome; nothing follows."""
        with self._lock:
            self._outcome = (outcome,)
        self._finished.set()

    def wait(self, seconds: float) -> bool:
        """Wait for the outcome, at most for `seconds`; return whether it is there."""
        return self._finished.wait(seconds)

    def drain(self) -> list[Message]:
        """Take out all that is there but the outcome, oldest first."""
        with self._lock:
            taken, self._messages, self._lines = self._messages, [], 0
            if self._lost:
                text = f"{self._lost} lines were not kept: printed faster than they are read"
                taken.append(LogLine(self._lost_rank, text))
                self._lost = 0
            if self._progress is not None:
                taken.append(self._progress)
                self._progress = None
        return taken

    def last(self) -> list[Message]:
        """Take out what is left, the outcome at its end; only once that is there."""
        return [*self.drain(), *self._outcome]
