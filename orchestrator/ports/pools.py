"""Where work runs: the process of a worker, the cluster, and what serves endpoints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import (
    AttemptRequest,
    Message,
    PoolStatus,
    ReplicaWeights,
    RevisionStatus,
)


class Worker(Protocol):
    """What runs in each worker process of an attempt: `wiring.run_worker`.

    Yields batches of messages until, last of all, exactly one `Succeeded` or `Failed`; never
    raises. Batches, because each costs a remote call's time while the job trains.
    """

    def __call__(
        self, request: AttemptRequest, *, rank: int, rendezvous: str | None
    ) -> Iterator[Sequence[Message]]:
        """Run the job as worker `rank`; `rendezvous` is `HOST:PORT` of rank 0's store."""
        ...


class Chip(Protocol):
    """What an attempt tells of the job that runs on an emulated chip: steps, at which it may fail.

    Both calls may raise whatever the chip's own software would.
    """

    def reached(self, step: int) -> None:
        """The job has named `step`, in its own count; each step counts once, in order."""
        ...

    def resumed(self, step: int) -> None:
        """The job goes on from the checkpoint of `step`."""
        ...


class Cluster(Protocol):
    """Where attempts of jobs run. No call blocks for longer than a placement probe."""

    def start(self, request: AttemptRequest) -> None:
        """Ask for an attempt. All that follows, infeasible placement too, comes by `poll`."""
        ...

    def poll(self, key: str) -> Sequence[Message]:
        """Return what attempt `key` said since the last call, oldest first.

        After `Succeeded` or `Failed`, which come once and last, everything the attempt held
        (processes, placement) is given back.

        Raises:
            ClusterError: The whole cluster is gone, and with it every attempt.
        """
        ...

    def cancel(self, key: str) -> None:
        """End attempt `key` and give back what it holds; nothing more comes from `poll`.

        Its workers are asked first, and have the request's `kill_after` seconds to leave, and to
        finish the checkpoint that they are saving.
        """
        ...

    def prepare(self, request: AttemptRequest) -> None:
        """Have workers for an attempt like `request` stand by, so that it starts quickly.

        They hold its place on its pool. Only a help: what can't be prepared is left.
        """
        ...

    def release(self, run: str, stage: str) -> None:
        """Send away those that stand by for `stage`, if any do."""
        ...

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        """Return the live state of the `wanted` pools.

        Raises:
            ClusterError: The cluster can't be reached.
        """
        ...

    def close(self) -> None:
        """Cancel what still runs and leave the cluster. Safe to call twice."""
        ...


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


class Job(Protocol):
    """A command that runs on the cluster by itself."""

    def status(self) -> str:
        """Return what it is: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; empty if unknown."""
        ...

    def last_words(self) -> str:
        """Return the last lines of what it printed, as one line."""
        ...

    def stop(self) -> None:
        """End it, if it runs."""
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
