"""What a controller says of its run beside the events, for those who look on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.messages import Busy, Untold


class RunNotes(Protocol):
    """Memory of what was said last. Raises `StoreError` for what the database refuses."""

    def note_untold(self, run: str, untold: Sequence[Untold]) -> None:
        """Keep what could not be told of `run`, over what was kept of it before."""
        ...

    def untold(self, run: str) -> Sequence[Untold]:
        """Return what could not be told of `run`."""
        ...

    def note_busy(self, run: str, busy: Sequence[Busy]) -> None:
        """Keep what the attempts of `run` are busy with, over what was kept of it before."""
        ...

    def busy(self, run: str) -> Sequence[Busy]:
        """Return what the attempts of `run` are busy with, as was said last."""
        ...
