"""What Ctrl-C and SIGTERM do to a command and to its run, and what a lost terminal does not.

A run outlives its terminal: SIGHUP is ignored, also by what the command starts. `orchestrator
logs -f` follows the run from another one, `orchestrator cancel` ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self, TypeAlias

from orchestrator.control.loop import Controller

_Handler: TypeAlias = Any  # of a signal: a function, or one of signal's own numbers


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, and let it go on without its terminal."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    hung_up = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGHUP, hung_up)


class Interrupts:
    """Lets the first Ctrl-C or SIGTERM cancel a run, and a second one break it off."""

    def __init__(self) -> None:
        self._controller: Controller | None = None
        self._reason = ""
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        """Begin to listen."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        """Leave signals as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def cancel(self, controller: Controller) -> None:
        """Cancel this controller's run, now if a signal has come already."""
        self._controller = controller
        if self._reason:
            controller.cancel(self._reason)

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a handler's form
        self._reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._controller:
            self._controller.cancel(self._reason)
