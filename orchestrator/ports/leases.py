"""Who has which run, and who has the endpoints of which cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.messages import Lease


class Leases(Protocol):
    """Memory of the controllers of runs; their times are by its own clock.

    Raises `StoreError` for what the database refuses.
    """

    def now(self) -> float:
        """Return the time by the clock of the store (seconds, epoch): those of hosts differ."""
        ...

    def renew_lease(self, lease: Lease) -> None:
        """Note that a controller has its run.

        Raises:
            StaleControllerError: One of a later epoch has it.
        """
        ...

    def lease(self, run: str) -> Lease | None:
        """Return when a controller of `run` last showed life; `None` after it has left."""
        ...

    def leases(self) -> Sequence[Lease]:
        """Return the leases of all runs whose controller has not left, dead ones included."""
        ...

    def drop_lease(self, run: str, epoch: int) -> None:
        """Note that the controller of `epoch` has left `run`. Safe to call twice."""
        ...


class EndpointLeases(Protocol):
    """Memory of who looks after endpoints. Raises `StoreError` for what the database refuses."""

    def hold(self, cluster: str, holder: str, seconds: float) -> bool:
        """Take or renew the lease on the endpoints of a cluster; return whether `holder` has it.

        Another's lease is taken over once that was not renewed for `seconds`, by the database's
        clock.
        """
        ...
