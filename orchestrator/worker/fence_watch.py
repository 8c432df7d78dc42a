"""Looks once in a while, beside the job, whether a newer attempt has claimed its checkpoints.

Whoever saves sees that by itself. A job that has lost its controller, and that nobody can end,
may not save for hours, and holds its chips all the while. A storage that is away says nothing
about that, and ends nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.errors import StaleAttemptError
from orchestrator.ports import Clock
from orchestrator.worker.background import Background
from orchestrator.worker.fencing import Fence

MOST_LOOKING = 64  # workers of a gang; of a larger one rank 0 looks alone


class FenceWatch:
    """Looks at a fence every so many `seconds`, in a thread of its own."""

    def __init__(self, fence: Callable[[], Fence | None], clock: Clock, seconds: float) -> None:
        """Look at what `fence` returns, as soon as that is anything."""
        self._fence, self._clock, self._seconds = fence, clock, seconds
        self._looked = clock.monotonic()
        self._check: Background | None = None

    def stale(self) -> StaleAttemptError | None:
        """Return why the attempt is over, once that was seen; begin a look that is due."""
        if self._check is not None:
            return self._seen(self._check) if self._check.done else None
        now = self._clock.monotonic()
        fence = self._fence() if now - self._looked >= self._seconds else None
        if fence is not None:
            self._looked = now
            self._check = Background(fence.check, "looks for a newer attempt")
        return None

    def _seen(self, check: Background) -> StaleAttemptError | None:
        self._check = None
        return check.error if isinstance(check.error, StaleAttemptError) else None
