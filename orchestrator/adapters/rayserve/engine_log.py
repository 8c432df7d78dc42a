"""How much of what an engine server prints is passed on to the log of its replica.

An engine that prints a traceback for each request would fill the disk of its node.
"""

from __future__ import annotations

BURST = 5_000  # lines, those of a start among them
PER_SECOND = 10.0


class LineBudget:
    """A bucket of lines that fills by `PER_SECOND`, at a moment in seconds."""

    def __init__(self, now: float) -> None:
        self._lines = float(BURST)
        self._at = now
        self._left_out = 0

    def passes(self, line: str, now: float) -> str:
        """Return what is to be written for `line`: itself, or nothing.

        The first line after others that were left out says how many.
        """
        self._lines = min(self._lines + (now - self._at) * PER_SECOND, BURST)
        self._at = now
        if self._lines < 1.0:
            self._left_out += 1
            return ""
        self._lines -= 1.0
        if self._left_out:
            line = f"supervisor: {self._left_out} lines of the engine were left out\n{line}"
            self._left_out = 0
        return line
