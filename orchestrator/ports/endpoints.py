"""What is kept of endpoints: their events, and what is known of them beside those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.core.endpoints.life import EndpointEvent, EndpointLife


class EndpointLog(Protocol):
    """Append-only memory of all endpoints. Raises `StoreError` for what the database refuses."""

    def now(self) -> float:
        """Return the time by the clock of the store (seconds, epoch): those of hosts differ."""
        ...

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


class EndpointStatus(Protocol):
    """What was said last of revisions. Raises `StoreError` for what the database refuses."""

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

    def idle_seconds(self) -> Mapping[str, float]:
        """Return for how many seconds nobody has asked, by endpoint, by the clock of the store."""
        ...
