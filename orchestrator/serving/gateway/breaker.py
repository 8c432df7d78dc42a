"""A circuit breaker: which replicas answer nothing but failures of their own.

A single 500 may be the request's fault. A replica that fails several times without an answer in
between is left alone for a while; after that one more failure is enough. A request that fails at
two replicas is what is wrong, and neither is blamed for it.
"""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 4096  # replicas that are remembered: those that have gone never answer again


class Breaker:
    """Failures in a row, by replica."""

    def __init__(self, failures: int = 3) -> None:
        self._most = failures
        self._failures: dict[str, int] = {}

    def failed(self, url: str) -> bool:
        """Count a failure; return whether the replica is to be left alone."""
        count = self._failures.pop(url, 0) + 1
        if len(self._failures) >= _MOST:
            del self._failures[next(iter(self._failures))]  # that failed longest ago
        self._failures[url] = count
        return count >= self._most

    def answered(self, url: str) -> None:
        """Forget the failures of a replica that has answered."""
        if self._failures:
            self._failures.pop(url, None)

    def forgive(self, urls: Iterable[str]) -> None:
        """Take one failure back from each of `urls`: the request was at fault."""
        for url in urls:
            left = self._failures.get(url, 0) - 1
            if left > 0:
                self._failures[url] = left
            else:
                self._failures.pop(url, None)
