"""A tracker for those who want none: `tracking=none`."""

from __future__ import annotations


class NoTracker:
    """Writes nothing; the database still has everything."""

    def notify(self) -> None:
        """Do nothing."""

    def close(self, timeout: float) -> bool:  # noqa: ARG002 - the port's signature
        """Say that all is written."""
        return True
