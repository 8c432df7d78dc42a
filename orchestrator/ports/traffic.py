"""What the traffic of endpoints tells."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from orchestrator.core.endpoints.probes import Probe, ProbeAnswer
from orchestrator.core.endpoints.promotion import TrafficFigures


class Traffic(Protocol):
    """The gateway's view of endpoints, and a way to put a question past it."""

    def figures(self, endpoint: str) -> Mapping[str, TrafficFigures]:
        """Return what the gateway has counted, by name of the revision (`r3`).

        Raises:
            ServingError: It does not answer.
        """
        ...

    def waiting(self, endpoint: str) -> int:
        """Return how many requests wait for room at a replica.

        Raises:
            ServingError: The gateway does not answer.
        """
        ...

    def answers(self, endpoint: str) -> bool:
        """Whether the gateway knows a replica for the endpoint."""
        ...

    def ask(self, url: str, token: str, probe: Probe) -> ProbeAnswer:
        """Put a question to the replica at `url`, past the gateway.

        Never raises: a replica that does not answer has the status 0.
        """
        ...
