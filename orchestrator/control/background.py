"""Work that goes on beside a job, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType


class Background:
    """Work that has begun. What it raises is kept for whoever asks: in its own thread nobody does.

    The thread does not keep the process alive: where the storage hangs, the worker can still end.
    """

    def __init__(self, work: Callable[[], None], name: str) -> None:
        """Begin `work` in a thread called `name`."""
        self._work = work
        self._done = threading.Event()
        self._error: BaseException | None = None
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether it has ended, well or badly."""
        return self._done.is_set()

    @property
    def failed(self) -> bool:
        """Whether it has ended badly."""
        return self._error is not None

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most for `seconds`; return whether it has ended."""
        return self._done.wait(seconds)

    def check(self) -> None:
        """Raise what the work raised, each time anew: a job may have swallowed it."""
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        with self:
            self._work()

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Keep what was raised."""
        self._error = error
        self._done.set()
        return True
