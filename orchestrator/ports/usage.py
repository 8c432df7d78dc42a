"""What is kept of how endpoints are used."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.core.endpoints.metering import Occupancy, Usage


class UsageStore(Protocol):
    """Memory of what was used. Several gateways add to it, each under its own name.

    Raises `StoreError` for what the database refuses.
    """

    def add_usage(
        self, gateway: str, usages: Sequence[Usage], occupied: Sequence[Occupancy]
    ) -> None:
        """Add to what `gateway` has noted, all or nothing."""
        ...

    def usage(self, since: str) -> Sequence[Usage]:
        """Return what all gateways together noted from the day `since` on."""
        ...

    def occupancy(self, since: str) -> Sequence[Occupancy]:
        """Return what was held from the day `since` on: what the gateway that saw most saw."""
        ...

    def spent(self, since: str) -> Mapping[str, float]:
        """Return US dollars by name of the key, of all gateways, from the day `since` on."""
        ...

    def used_elsewhere(self, gateway: str, since: str) -> Mapping[str, tuple[int, int]]:
        """Return requests and tokens by name of the key that gateways but this one noted."""
        ...
