"""Ends an attempt beside all else: its workers are asked, have some seconds to leave, are killed.

A worker that is asked leaves at its job's next call of the context, when the checkpoint is there
that it is saving (`worker/attempt.py`). Whoever can't hear (native code, a stopped process) is
killed when the time is over, and so is all that it started (`supervisor/orphans.py`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from orchestrator.adapters.raycluster import ray_errors

TICK_SECONDS = 0.1


def _sleep(seconds: float) -> None:
    threading.Event().wait(seconds)


class Endable(Protocol):
    """What is ended: an attempt."""

    @property
    def key(self) -> str:
        """Its key."""
        ...

    @property
    def kill_after(self) -> float:
        """How many seconds its workers have to leave when they are asked to."""
        ...

    def ask_to_end(self) -> bool:
        """Ask its workers to end; return whether any can be."""
        ...

    def all_left(self) -> bool:
        """Return whether nobody is left of those who were asked."""
        ...

    def end(self) -> None:
        """Kill the processes that are left, and give the place back."""
        ...


def end(
    attempt: Endable,
    now: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = _sleep,
) -> None:
    """Ask the workers of `attempt` to end, and kill those that don't in time."""
    try:
        with suppress(*ray_errors.ERRORS):
            until = now() + attempt.kill_after
            if attempt.kill_after and attempt.ask_to_end():
                while not attempt.all_left() and now() < until:
                    sleep(TICK_SECONDS)
    finally:
        with suppress(*ray_errors.ERRORS):
            attempt.end()
