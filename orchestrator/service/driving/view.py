"""Whoever asked for a run, while it goes on: is shown it, and may interrupt it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.messages import Message, Untold


class Cancellable(Protocol):
    """What drives a run, and ends it when it is told to."""

    def cancel(self, reason: str) -> None:
        """Cancel the run, for that reason."""
        ...


class Interrupts(Protocol):
    """What cancels a run from outside: signals, or nothing at all."""

    @property
    def reason(self) -> str:
        """What has interrupted; empty while nothing has."""
        ...

    def cancel(self, controller: Cancellable) -> None:
        """Cancel the run of `controller` once something interrupts, now if that has come."""
        ...


class View(Protocol):
    """What shows runs while they go on, and may interrupt them."""

    def interruptible(self) -> AbstractContextManager[Interrupts]:
        """Let what interrupts cancel runs, from now until the end of the context."""
        ...

    def begins(self, header: RunHeader, *, again: bool = False) -> None:
        """Take notice that a run begins, or goes on `again`; the services are up."""
        ...

    def ended(self, run: Run) -> None:
        """Take notice of how a run ended."""
        ...

    def follow(self, current: Callable[[], Run]) -> None:
        """Show the run that `current` returns, as it then stands, from now on."""
        ...

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Take notice of what an attempt says."""
        ...

    def changed(self) -> None:
        """Take notice that the run has a new event."""
        ...

    def untold(self, untold: Sequence[Untold]) -> None:
        """Take notice of what could not be told of the run."""
        ...


class Uninterrupted:
    """Nothing interrupts: signals are the caller's own."""

    reason = ""

    def cancel(self, controller: Cancellable) -> None:
        """Leave the run alone."""


class Unseen:
    """A view that shows nothing and interrupts nothing: any thread may have it."""

    def interruptible(self) -> AbstractContextManager[Interrupts]:
        """Leave signals as they are."""
        return nullcontext(Uninterrupted())

    def begins(self, header: RunHeader, *, again: bool = False) -> None:
        """Take no notice."""

    def ended(self, run: Run) -> None:
        """Take no notice."""

    def follow(self, current: Callable[[], Run]) -> None:
        """Take no notice."""

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Take no notice."""

    def changed(self) -> None:
        """Take no notice."""

    def untold(self, untold: Sequence[Untold]) -> None:
        """Take no notice."""
