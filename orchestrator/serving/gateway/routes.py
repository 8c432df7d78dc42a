"""Where requests go: the endpoints, their revisions, and the replicas that answer for each.

The gateway reads these values anew every moment; who writes them is no concern of its.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.core.endpoints.api_keys import ApiKey, Requirement


@dataclass(frozen=True, slots=True, kw_only=True)
class Far:
    """How a server that somebody else runs is asked.

    Attributes:
        headers: Sent with each request, the one with its key among them.
        query: Sent with each request.
        ca_file: What its certificate is checked by; the system's own where empty.
        proxy: Whether the proxy that the environment names is asked.
    """

    headers: tuple[tuple[str, str], ...] = ()
    query: str = ""
    ca_file: str = ""
    proxy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionRoute:
    """A revision that may take traffic.

    Attributes:
        name: `r3`.
        pool: Its pool, for metrics and for people.
        share: Percent of the traffic.
        urls: Base URL of each replica that answers (`http://10.0.0.1:30000/chat.r3`), or of the
            one outside; `/v1/...` comes after it.
        token: What is sent to one of ours as the bearer token.
        model: Name of the model there; the endpoint's own name where empty.
        far: How it is asked, where somebody else runs it.
        server: Whether an engine server of ours answers: its API is its own.
        concurrency: Choices that a replica of its works on at once, as its engine says; 0: as the
            endpoint says.
        devices: Chips of one of our replicas.
        hourly: US dollars an hour of one replica; 0 where that has no price.
        version: Name of the weights that it is told to serve, as a header may have it.
    """

    name: str
    pool: str
    share: int
    urls: tuple[str, ...]
    token: str = ""
    model: str = ""
    far: Far | None = None
    server: bool = False
    concurrency: int = 0
    devices: int = 0
    hourly: float = 0.0
    version: str = ""

    @property
    def outside(self) -> bool:
        """Whether somebody else runs it."""
        return self.far is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointRoute:
    """An endpoint and its revisions.

    Attributes:
        name: Name of the endpoint, and of its model in the OpenAI API.
        revisions: Those that take traffic, and the shadow.
        shadow: Name of the revision that gets a copy of each request, answered to nobody.
        sticky: What keeps a client on a revision while shares stand: its API `key`, the header
            `x-session-id` (`session`), or nothing.
        concurrency: Requests a replica works on at once, at most.
        queue: Requests that wait for a replica, at most; more are answered by 429.
        overflow: Name of the revision that takes what finds no room at the others.
        created: When what leads was asked for, or its weights last changed (seconds, epoch).
        rests: Whether its replicas end when nobody asks, and are started for a request.
    """

    name: str
    revisions: tuple[RevisionRoute, ...]
    shadow: str = ""
    sticky: str = ""
    concurrency: int = 256
    queue: int = 1024
    overflow: str = ""
    rests: bool = False
    created: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All that the gateway goes by: endpoints by name, keys by digest, whether one is needed."""

    endpoints: Mapping[str, EndpointRoute] = field(default_factory=dict)
    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    required: Requirement = Requirement.UNKNOWN


class Routes(Protocol):
    """Where the gateway looks the table up; cheap enough for every request."""

    def table(self) -> Table:
        """Return the newest table."""
        ...

    def age(self) -> float:
        """Return for how many seconds the table has not been read anew."""
        ...

    def asking(self, endpoint: str) -> AbstractContextManager[None]:
        """Let it be known, for a block, that somebody asks an endpoint that `rests`."""
        ...
