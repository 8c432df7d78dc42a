"""Ejection: which replicas are asked nothing because they failed, and who tries them again.

Each failure in a row doubles the pause. After it one request tries the replica, and the next one
when that has ended, begun to be answered, or said nothing for long. Once one has been answered
well, all are let in.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

_FIRST = 0.2  # seconds of a pause
_FORGOTTEN = 60.0  # seconds after a pause, from when on it says nothing of the next one
_TRIAL = 5.0  # seconds that the next trial waits for one


@dataclass(slots=True, eq=False)
class Ejection:
    """One replica's: `until` when nobody is let in, and how long the last pause was."""

    until: float
    pause: float


class Ejections:
    """Those of all replicas. Times are those of the event loop."""

    def __init__(self, longest: float = 5.0) -> None:
        """Leave nobody alone yet, and nobody for longer than `longest` seconds."""
        self._longest = longest
        self._of: dict[str, Ejection] = {}

    def __len__(self) -> int:
        """Return how many replicas are ejected, or tried."""
        return len(self._of)

    def admits(self, url: str, now: float) -> bool:
        """Whether the replica `url` may be asked."""
        if not self._of:  # so it is nearly always
            return True
        ejection = self._of.get(url)
        return ejection is None or ejection.until <= now

    def eject(self, url: str, now: float) -> None:
        """Leave the replica `url` alone for a while: it failed."""
        before = self._of.get(url)
        recent = before is not None and now - before.until < _FORGOTTEN
        pause = min(2 * before.pause if before and recent else _FIRST, self._longest)
        self._of[url] = Ejection(now + pause, pause)

    def trial(self, url: str, now: float) -> Ejection | None:
        """Let a request in; return what it tries, and nothing where the replica is well."""
        ejection = self._of.get(url)
        if ejection is not None:
            ejection.until = now + _TRIAL
        return ejection

    def ended(self, url: str, ejection: Ejection, now: float) -> None:
        """Let the next one try, unless the trial has told already whether the replica is well."""
        if self._of.get(url) is ejection:
            ejection.until = now

    def readmit(self, url: str, ejection: Ejection) -> None:
        """Let all in again: the trial was answered well."""
        if self._of.get(url) is ejection:
            del self._of[url]

    def keep(self, urls: Container[str]) -> None:
        """Forget all replicas but `urls`: the others are gone."""
        self._of = {url: ejection for url, ejection in self._of.items() if url in urls}
