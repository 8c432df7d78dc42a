"""What is kept of endpoints, and what their traffic tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.core.endpoints.gateways import Gateway
from orchestrator.core.endpoints.life import EndpointEvent, EndpointLife
from orchestrator.core.endpoints.probes import Answer, Probe
from orchestrator.core.endpoints.rollout import Figures
from orchestrator.ports.keys import KeyStore


class EndpointStore(KeyStore, Protocol):
    """Memory of all endpoints. Raises `StoreError` for what the database refuses."""

    def endpoint(self, name: str) -> EndpointLife:
        """Return the endpoint as its events tell; one without events has no revision."""
        ...

    def endpoints(self) -> Mapping[str, EndpointLife]:
        """Return all endpoints that have events, by name."""
        ...

    def follow(self, life: EndpointLife, events: Sequence[EndpointEvent], at: float) -> None:
        """Commit what happens to the endpoint after `life`, all or nothing.

        Raises:
            TransitionError: An event does not fit.
            ConflictError: Somebody else has changed the endpoint since `life`.
        """
        ...

    def hold(self, cluster: str, holder: str, seconds: float) -> bool:
        """Take or renew the lease on the endpoints of a cluster; return whether `holder` has it.

        Another's lease is taken over once that was not renewed for `seconds`, by the database's
        clock.
        """
        ...

    def note_replicas(self, endpoint: str, revision: int, urls: Sequence[str]) -> None:
        """Make `urls` the replicas of a revision, instead of before; none is none."""
        ...

    def replicas(self) -> Mapping[tuple[str, int], tuple[str, ...]]:
        """Return the base URLs of the replicas that answer, sorted, by endpoint and revision."""
        ...

    def note_trouble(self, endpoint: str, revision: int, reason: str) -> None:
        """Note why a revision has no replica, instead of before; an empty reason is none."""
        ...

    def troubles(self) -> Mapping[tuple[str, int], str]:
        """Return why revisions have no replica, by endpoint and revision."""
        ...

    def note_asked(self, endpoint: str) -> None:
        """Note that somebody asks an endpoint, by the clock of the store."""
        ...

    def asked(self) -> Mapping[str, float]:
        """Return for how many seconds nobody has asked, by endpoint, by the clock of the store."""
        ...


class GatewayStore(Protocol):
    """Where gateways are, and what they have counted. Raises `StoreError` as the others do."""

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


class Traffic(Protocol):
    """The gateway's view of endpoints, and a way to put a question past it."""

    def figures(self, endpoint: str) -> Mapping[str, Figures]:
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

    def ask(self, url: str, token: str, probe: Probe) -> Answer:
        """Put a question to the replica at `url`, past the gateway.

        Never raises: a replica that does not answer has the status 0.
        """
        ...
