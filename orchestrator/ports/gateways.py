"""Where gateways are, and what they have counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.core.endpoints.gateway_entry import Gateway


class GatewayStore(Protocol):
    """Memory of all gateways. Raises `StoreError` for what the database refuses."""

    def note_gateway(self, gateway: Gateway) -> None:
        """Note that a gateway lives, by the clock of the store."""
        ...

    def drop_gateway(self, name: str) -> None:
        """Note that a gateway has ended; what it has counted stays for a day."""
        ...

    def gateways(self) -> Sequence[Gateway]:
        """Return all gateways that have not ended by themselves, the oldest first."""
        ...

    def note_counts(self, gateway: str, counts: Mapping[str, str]) -> None:
        """Keep what a gateway has counted so far, by endpoint, in Prometheus' text format."""
        ...

    def counts(self, endpoint: str) -> Mapping[str, str]:
        """Return what each gateway has counted of an endpoint, those that are gone too."""
        ...
