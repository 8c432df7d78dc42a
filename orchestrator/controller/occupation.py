"""What the attempts of a run are busy with now, as their workers say, for those who ask the store.

What lasts less than a second is not seen, for workers show once a second that they live. Of those
that are busy the one with the lowest rank is noted.
"""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.core.runs.run import Attempt
from orchestrator.error_boundary import outcome
from orchestrator.messages import Alive, Busy, Message
from orchestrator.ports import Clock, RunNotes

SECONDS_BETWEEN_NOTES = 1.0
_JITTER_SECONDS = 2.0  # of when something began, as it is heard once a second


class Occupation:
    """What the attempts of `run` are busy with."""

    def __init__(self, notes: RunNotes, run: str, clock: Clock) -> None:
        """Know of nothing."""
        self._notes, self._run, self._clock = notes, run, clock
        self._busy: dict[tuple[str, int], dict[int, Busy]] = {}
        self._noted: tuple[Busy, ...] = ()
        self._next = 0.0

    def hear(self, attempt: Attempt, message: Message) -> None:
        """Take notice of what a worker is busy with."""
        if not isinstance(message, Alive):
            return
        ranks = self._busy.setdefault((attempt.stage, attempt.number), {})
        before = ranks.pop(message.rank, None)
        if message.busy:
            since = self._clock.now() - message.seconds
            busy = Busy(attempt.stage, attempt.number, message.busy, since)
            same = before is not None and before.what == busy.what
            if before is not None and same and abs(before.since - since) < _JITTER_SECONDS:
                busy = before
            ranks[message.rank] = busy

    def note(self, active: Collection[Attempt]) -> None:
        """Note what the `active` attempts are busy with, where that has changed.

        This may fail in silence, and is done again.
        """
        now = self._clock.monotonic()
        keys = {(attempt.stage, attempt.number) for attempt in active}
        self._busy = {key: ranks for key, ranks in self._busy.items() if key in keys}
        busy = tuple(ranks[min(ranks)] for _, ranks in sorted(self._busy.items()) if ranks)
        if busy != self._noted and (now >= self._next or not active):
            self._next = now + SECONDS_BETWEEN_NOTES
            if outcome(lambda: self._notes.note_busy(self._run, busy)).error is None:
                self._noted = busy
