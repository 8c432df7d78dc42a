"""What Ctrl-C and SIGTERM do to a command and to its run, and what a lost terminal does not.

SIGQUIT breaks a command off in order, as a second Ctrl-C does: its run can be resumed.
A run outlives its terminal: SIGHUP is ignored, also by what the command starts. `orchestrator
logs -f` follows the run from another one, `orchestrator cancel` ends it.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeAlias

if TYPE_CHECKING:  # help is printed without it
    from orchestrator.service.driving import Cancellable

_Handler: TypeAlias = Any  # of a signal: a function, or one of signal's own numbers


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM and SIGQUIT end a command as Ctrl-C does, and SIGHUP not at all.

    Whatever it has started ends with it then, which it would not if a signal killed it.
    """
    handlers: dict[signal.Signals, _Handler] = {
        signal.SIGTERM: signal.default_int_handler,
        signal.SIGQUIT: signal.default_int_handler,
        signal.SIGHUP: signal.SIG_IGN,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class SignalInterrupts:
    """Lets the first Ctrl-C or SIGTERM cancel a run, and a second one break it off.

    `reason` is the signal that has come, if any. Those around it hear it too: a sweep whose run
    was interrupted starts no other.
    """

    def __init__(self) -> None:
        self._controller: Cancellable | None = None
        self.reason = ""
        self._before: dict[signal.Signals, _Handler] = {}

    def __enter__(self) -> Self:
        """Begin to listen."""
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self.hear)
            around = self._around(number)
            if around is not None:
                self.reason = self.reason or around.reason
        return self

    def __exit__(self, *error: object) -> None:
        """Leave signals as they were."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def cancel(self, controller: Cancellable) -> None:
        """Cancel this controller's run, now if a signal has come already."""
        self._controller = controller
        if self.reason:
            controller.cancel(self.reason)

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Take notice of a signal: the handler of both."""
        self.reason = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        around = self._around(signal.Signals(number))
        if around is not None:
            around.hear(number, frame)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._controller:
            self._controller.cancel(self.reason)

    def _around(self, number: signal.Signals) -> SignalInterrupts | None:
        """Return those that listened before, if any did."""
        around = getattr(self._before.get(number), "__self__", None)
        return around if isinstance(around, SignalInterrupts) else None
