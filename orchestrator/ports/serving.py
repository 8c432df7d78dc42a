"""Where endpoints are served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from orchestrator.core.endpoints.life import Deployment
from orchestrator.messages import Message, ReplicaWeights, RevisionStatus


class Serving(Protocol):
    """Where models are deployed. Same life cycle as an attempt of a job."""

    def start(self, deployment: Deployment) -> None:
        """Ask for a deployment; returns at once."""
        ...

    def poll(self, key: str) -> Sequence[Message]:
        """Return what the deployment said since the last call; `Succeeded` when it answers."""
        ...

    def cancel(self, key: str) -> None:
        """Have the deployment taken away; returns at once."""
        ...

    def settle(self) -> None:
        """Wait until what was cancelled is gone, as long as that may take."""
        ...


class Replicas(Serving, Protocol):
    """Where single revisions are deployed: what rollouts and the reconciler work with."""

    def cluster(self) -> str:
        """Return the identity of the cluster: no two have the same, wherever they are seen from.

        Raises:
            ServingError: It can't be reached.
        """
        ...

    def delete(self, name: str) -> None:
        """Take away what is live under this name; streams that are being answered end first.

        Raises:
            ServingError: It is not there, or can't be reached or deleted.
        """
        ...

    def live(self) -> Mapping[str, RevisionStatus]:
        """Return the revisions that are deployed, by name (`chat.r3`).

        Raises:
            ServingError: Serving can't be reached.
        """
        ...

    def replace(self, deployment: Deployment, count: int) -> None:
        """Start so many replicas beside those of a live revision, on nodes that may be used.

        Returns at once; `poll` tells of it, and `cancel` gives it up.
        """
        ...

    def end_replacement(self, name: str, *, takes_over: bool) -> None:
        """Take away the replicas that were replaced; those that were to replace them if not so.

        Raises:
            ServingError: Serving can't be reached, or does not do it.
        """
        ...

    def weights(self, deployment: Deployment) -> Mapping[str, ReplicaWeights]:
        """Return what each replica of a live revision serves, by the replica's address.

        Those that don't answer within a moment are left out.

        Raises:
            ServingError: Serving can't be reached.
        """
        ...

    def update(self, deployment: Deployment, replica: str, *, wait: bool = True) -> None:
        """Have a replica serve the model of `deployment`; it answers all the while.

        Blocks until it does, or, where nobody is to `wait`, until it has begun.

        Raises:
            ServingError: It does not take the model, and what it served serves on.
        """
        ...
