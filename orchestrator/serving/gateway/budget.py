"""Memory for bodies: how many bytes the gateway holds at once, of all that pass through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orchestrator.serving.http.api_errors import ApiError


class Holding:
    """What one request holds."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.size = 0

    def add(self, size: int) -> None:
        """Hold `size` bytes more; less, where it is negative.

        Raises:
            ApiError: There is no room for them.
        """
        self._budget.take(size)
        self.size += size


class Budget:
    """Room for `total` bytes."""

    def __init__(self, total: int) -> None:
        self._total = total
        self.held_bytes = 0

    @contextmanager
    def holding(self) -> Iterator[Holding]:
        """Hold for a block what that adds."""
        holding = Holding(self)
        try:
            yield holding
        finally:
            self.held_bytes -= holding.size

    def take(self, size: int) -> None:
        """Count `size` bytes, for a holding.

        Raises:
            ApiError: There is no room for them.
        """
        if size > 0 and self.held_bytes + size > self._total:
            what = f"the gateway holds {self.held_bytes} bytes of bodies; {self._total} at most"
            raise ApiError(503, what, code="busy", retry_after=1)
        self.held_bytes += size
