"""Where people see runs."""

from __future__ import annotations

from typing import Protocol


class Tracker(Protocol):
    """A projection of the database for people. Never raises, never blocks the pipeline."""

    def notify(self) -> None:
        """Say that there is something new in the store."""
        ...

    def close(self, timeout: float) -> bool:
        """Write what is left, at most for `timeout` seconds; return whether all is written."""
        ...
