"""What runs wait for pools, and which pools are to be emptied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.messages import Queued


class Queues(Protocol):
    """The queues before pools, by the clock of the store.

    Raises `StoreError` for what the database refuses.
    """

    def queue_up(self, run: str, entries: Sequence[Queued]) -> None:
        """Make `entries` what `run` waits for as of now, instead of before."""
        ...

    def queue(self, seconds: float) -> Sequence[Queued]:
        """Return what all runs wait for that said so in the last `seconds`."""
        ...

    def drain(self, pool: str, reason: str) -> None:
        """Note that `pool` is to be emptied. Safe to call twice; the last reason stays."""
        ...

    def undrain(self, pool: str) -> None:
        """Note that `pool` is to be used again. Safe to call twice."""
        ...

    def drained(self) -> Mapping[str, str]:
        """Return the pools that are to be emptied, with the reasons."""
        ...
