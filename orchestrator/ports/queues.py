"""What runs wait for pools, and which pools and nodes are not to be used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from orchestrator.messages import Queued, UnusedNode


class Queues(Protocol):
    """The queues before pools, by the clock of the store.

    Raises `StoreError` for what the database refuses.
    """

    def queue_up(self, run: str, entries: Sequence[Queued]) -> None:
        """Make `entries` what `run` waits for as of now, instead of before."""
        ...

    def queue(self, seconds: float, pools: Collection[str] | None = None) -> Sequence[Queued]:
        """Return what all runs wait for that said so in the last `seconds`; of some `pools`."""
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

    def quarantine(self, pool: str, node: str, reason: str, seconds: float) -> None:
        """Have a node not used for so many seconds, unless it is to be used even less."""
        ...

    def drain_node(self, pool: str, node: str, reason: str) -> None:
        """Note that a node is to be emptied. Safe to call twice; the last reason stays."""
        ...

    def release_node(self, pool: str, node: str) -> None:
        """Note that a node is to be used again. Safe to call twice."""
        ...

    def unused_nodes(self) -> Sequence[UnusedNode]:
        """Return the nodes that are not to be used now."""
        ...
