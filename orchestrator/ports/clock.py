"""Time."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, in seconds."""

    def now(self) -> float:
        """Return seconds since the epoch: a time of day, which may be set."""
        ...

    def monotonic(self) -> float:
        """Return seconds since some moment: for intervals, whatever the time of day does."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; a test's clock returns at once."""
        ...
