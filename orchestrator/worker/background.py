"""Work that goes on beside a job, in a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType

from orchestrator.worker.activity import measured

POLL_SECONDS = 0.05
LOOK_SECONDS = 10.0
_BYTES, _CPU_SECONDS = 1 << 20, 60.0  # of what a process does that only waits, in ten minutes


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
    def error(self) -> BaseException | None:
        """What it has raised, if it has."""
        return self._error

    def wait(self, seconds: float) -> bool:
        """Wait for its end, at most for `seconds`; return whether it has ended."""
        return self._done.wait(seconds)

    def outlast(
        self,
        go_on: Callable[[], None],
        patience: float,
        *,
        every: float = LOOK_SECONDS,
        done: Callable[[], object] | None = None,
    ) -> bool:
        """Wait for its end, while this process does anything within each `patience` seconds.

        Return whether it has ended; `go_on` is called all the while, and may raise. What `done`
        says this process has done is looked at `every` so many seconds.
        """
        done = done or _done
        stood, rests, looked = done(), 0.0, 0.0
        while not self.wait(POLL_SECONDS):
            go_on()
            rests, looked = rests + POLL_SECONDS, looked + POLL_SECONDS
            if looked >= every:
                before, stood, looked = stood, done(), 0.0
                rests = rests if stood == before else 0.0
            if rests > patience:
                return False
        return True

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


def _done() -> tuple[int, int]:
    """Return what this process has done, so coarse that mere waiting does not show."""
    activity = measured()
    return activity.io // _BYTES, int(activity.cpu // _CPU_SECONDS)
