"""The rest of the world: gates, the tracker, the clock, and who looks on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from orchestrator.core.spec.policy import Gate
from orchestrator.messages import Message


class Gates(Protocol):
    """Looks whether what stages wait for is there."""

    def look(self, gate: Gate, run: str, stage: str) -> str | None:
        """Return what opens the gate of `stage`, in words, or `None` while it is shut.

        Never raises, and blocks for a second or two at most: what can't be looked at is shut.
        """
        ...


class Tracker(Protocol):
    """A projection of the event store for people. Never raises, never blocks the pipeline."""

    def notify(self) -> None:
        """Say that there is something new in the store."""
        ...

    def close(self, timeout: float) -> bool:
        """Write what is left, at most for `timeout` seconds; return whether all is written."""
        ...


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


Observer: TypeAlias = Callable[[str, int, Message], None]
