"""What Serve is asked for: the replicas of a revision, as one application."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.adapters.rayserve.replica import Fetch, MakeClock
from orchestrator.core.endpoints.life import Deployment
from orchestrator.messages import UnusedNode

# Of a run and a pool of it: the nodes that are not to be used, by name.
Unused: TypeAlias = Callable[[str, str], Mapping[str, UnusedNode]]


@dataclass(frozen=True, slots=True)
class ServeRequest:
    """Replicas of `deployment` as application `name`, `replicas` of them at first.

    With `others` they are to take the place of such on nodes that are not to be used: on those
    none is placed, also where no other node can hold them.
    """

    deployment: Deployment
    name: str
    replicas: int
    others: bool = False


@dataclass(frozen=True, slots=True)
class ClusterEntry:
    """How a process comes into a cluster, and how that is known.

    `identity` is that of a cluster which its home starts again under the same one. `admit` raises
    what keeps this process out of the one at an address: Ray itself would try for a minute.
    """

    identity: str = ""
    admit: Callable[[str], None] = lambda _address: None


@dataclass(frozen=True, slots=True)
class DeploymentPorts:
    """What a deployment asks of others.

    `fetch` and `clock` are functions of a module, which run in the replicas. `unused` returns the
    nodes that are not to be used, `secret` the value of a secret by its source, if there is one.
    """

    fetch: Fetch
    clock: MakeClock
    unused: Unused
    secret: Callable[[str], str | None]

    def unused_by(self, deployment: Deployment) -> Mapping[str, UnusedNode]:
        """Return the nodes of its pool that are not to be used, by name."""
        return self.unused(deployment.run, deployment.pool.name)

    def secrets_of(self, deployment: Deployment) -> dict[str, str]:
        """Return the values of its secrets, of which those are left out that have none here."""
        values = {name: self.secret(source) for name, source in deployment.secrets.items()}
        return {name: value for name, value in values.items() if value is not None}
