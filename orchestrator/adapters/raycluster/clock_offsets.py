"""By how much the clocks of nodes differ, as far as the signs of life of their workers tell.

A sign says when it was given, by the clock of its node. What lies between that and when it is
heard is the difference of the two clocks, and the way of the message; of many the least is nearly
the difference alone. A difference that ways may explain is none.
"""

from __future__ import annotations

from math import inf

FEWEST = 5  # signs of a node, before its least says something
WAYS = 0.1  # seconds


class ClockOffsets:
    """How much later each node's signs of life are heard than they say that they were given."""

    def __init__(self) -> None:
        """Have heard none."""
        self._least: dict[str, float] = {}
        self._heard: dict[str, int] = {}

    def heard(self, node: str, at: float, now: float) -> None:
        """Take notice of a sign that `node` gave at `at` and that is heard at `now` (seconds)."""
        self._least[node] = min(self._least.get(node, inf), now - at)
        self._heard[node] = self._heard.get(node, 0) + 1

    def on_one_clock(self, node: str, at: float) -> float:
        """Return when `at` of the clock of `node` was, by the clock that most nodes agree with.

        Those times of several nodes can be compared; a node that nobody knows agrees.
        """
        known = sorted(least for host, least in self._least.items() if self._heard[host] >= FEWEST)
        if not known or self._heard.get(node, 0) < FEWEST:
            return at
        behind = self._least[node] - known[len(known) // 2]
        return at + behind if abs(behind) > WAYS else at
