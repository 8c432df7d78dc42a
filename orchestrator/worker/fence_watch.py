"""Looks once in a while, beside the job, whether a newer attempt has claimed its checkpoints.

Whoever saves sees that by itself. A job that has lost its controller, and that nobody can end,
may not save for hours, and holds its chips all the while. So each worker of a gang looks: nobody
else may be left to tell it. They take turns, and the more there are, the less often each looks, so
that the storage is asked no oftener than by `MOST_LOOKING` of them. A storage that is away says
nothing, and ends nobody.
"""

from __future__ import annotations

from collections.abc import Callable

from orchestrator.core.errors import StaleAttemptError
from orchestrator.ports import Clock
from orchestrator.worker.background import Background
from orchestrator.worker.fencing import Fence

MOST_LOOKING = 64  # workers of a gang that look as often as the setting says


class FenceWatch:
    """Looks at a fence every so many seconds, in a thread of its own."""

    def __init__(
        self,
        fence: Callable[[], Fence | None],
        clock: Clock,
        seconds: float,
        *,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        """Look at what `fence` returns, as soon as that is anything, as worker `rank` of so many.

        Each of few `workers` looks every so many `seconds`.
        """
        self._fence, self._clock = fence, clock
        self._pause = seconds * max(1.0, workers / MOST_LOOKING)
        self._next_look = clock.monotonic() + self._pause * (rank + 1) / workers
        self._check: Background | None = None

    def stale(self) -> StaleAttemptError | None:
        """Return why the attempt is over, once that was seen; begin a look that is due."""
        check = self._check
        if check is not None:
            return self._seen(check) if check.done else None
        now = self._clock.monotonic()
        fence = self._fence() if now >= self._next_look else None
        if fence is not None:
            self._next_look += self._pause * (1 + (now - self._next_look) // self._pause)
            self._check = Background(fence.check, "looks for a newer attempt")
        return None

    def _seen(self, check: Background) -> StaleAttemptError | None:
        self._check = None
        return check.error if isinstance(check.error, StaleAttemptError) else None
