"""The time of a run: that of the database when its controller began, and what has passed since.

Limits and waits are judged by the times of events, whichever host's controller wrote them. A time
of day that is another one on each host, or that somebody sets forward or back, must not end a
stage by its time limit, nor stop it for an hour.
"""

from __future__ import annotations

from orchestrator.ports import Clock

SECONDS_OF_A_JUMP = 1.0  # what is less is drift that is being mended


class MonotonicClock:
    """A clock that never goes back and never jumps; small corrections it follows."""

    def __init__(self, clock: Clock, since: float) -> None:
        """Begin at `since` (seconds, epoch)."""
        self._clock = clock
        now = clock.now()
        self._shift = since - now
        self._last = now + self._shift
        self._between = now - clock.monotonic()

    def now(self) -> float:
        """Return seconds since the epoch."""
        now = self._clock.now()
        between = now - self._clock.monotonic()
        jumped = between - self._between
        self._between = between
        if abs(jumped) > SECONDS_OF_A_JUMP:
            self._shift -= jumped
        self._last = max(self._last, now + self._shift)
        return self._last

    def monotonic(self) -> float:
        """Return seconds since some moment."""
        return self._clock.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self._clock.sleep(seconds)
