"""What shows a run while it goes on, to whoever asked for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.messages import Message, Untold


class View(Protocol):
    """What shows runs while they go on."""

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


class Unseen:
    """A view that shows nothing."""

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
