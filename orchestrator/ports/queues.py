"""What runs wait for pools, and which pools are to be emptied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.messages import Queued


class Queues(Protocol):
    """The queues before pools. Raises `StoreError` for what the database refuses."""

    def queue_up(self, run: str, entries: Sequence[Queued], at: float) -> None:
        """Make `entries` what `run` waits for as of `at` (seconds, epoch), instead of before."""
        ...

    def queue(self, since: float) -> Sequence[Queued]:
        """Return what all runs wait for that said so at `since` (seconds, epoch) or later."""
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
