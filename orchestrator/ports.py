"""What the control plane asks of the world. Adapters implement these; tests fake them.

Foreign errors are translated by the adapter: a port raises only what its docstring names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias

from orchestrator.core.artifact import ArtifactRef, Manifest
from orchestrator.core.run import RunHeader
from orchestrator.core.spec import Pool
from orchestrator.core.state import Event
from orchestrator.messages import (
    AttemptRequest,
    Deployment,
    EndpointStatus,
    Message,
    Points,
    PoolStatus,
    Succeeded,
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


class Cluster(Protocol):
    """Where attempts of jobs run. No call blocks for longer than a placement probe."""

    def start(self, request: AttemptRequest) -> None:
        """Ask for an attempt. All that follows, infeasible placement too, comes by `poll`."""
        ...

    def poll(self, key: str) -> Sequence[Message]:
        """Return what attempt `key` said since the last call, oldest first.

        After `Succeeded` or `Failed`, which come once and last, everything the attempt held
        (processes, placement) is given back.
        """
        ...

    def cancel(self, key: str) -> None:
        """End attempt `key` and give back what it holds; nothing more comes from `poll`."""
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
    """Where endpoints are deployed. Same life cycle as an attempt of a job."""

    def start(self, deployment: Deployment) -> None:
        """Ask for a deployment; returns at once."""
        ...

    def poll(self, key: str) -> Sequence[Message]:
        """Return what the deployment said since the last call; `Succeeded` when it answers."""
        ...

    def cancel(self, key: str) -> None:
        """Take the deployment away."""
        ...

    def delete(self, endpoint: str) -> None:
        """Take a live endpoint away.

        Raises:
            ServingError: It can't be reached or deleted.
        """
        ...

    def live(self) -> Mapping[str, EndpointStatus]:
        """Return the endpoints that are deployed, by name.

        Raises:
            ServingError: Serving can't be reached.
        """
        ...


# --- what is kept -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it was committed: its number in the run and its time (seconds, epoch)."""

    run: str
    seq: int
    at: float
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """A metric point as it was committed; `id` grows over the whole store."""

    id: int
    run: str
    stage: str
    attempt: int
    key: str
    value: float
    step: int
    at: float


class EventStore(Protocol):
    """Append-only memory of all runs. Raises `StoreError` for what the database refuses."""

    def create(self, header: RunHeader, at: float) -> None:
        """Add a run. Raises `StoreError` when its id exists."""
        ...

    def append(self, run: str, seq: int, events: Sequence[Event], at: float) -> None:
        """Commit `events` as numbers `seq`, `seq + 1`, ... of `run`, all or none.

        Raises:
            StaleControllerError: Number `seq` exists: another controller has this run.
        """
        ...

    def events(self, run: str, after: int = 0) -> Sequence[Stored]:
        """Return the events of `run` numbered above `after`, in order."""
        ...

    def header(self, run: str) -> RunHeader:
        """Return the header of `run`, by id or unique prefix. Raises `NotFoundError`."""
        ...

    def runs(self, limit: int = 50) -> Sequence[RunHeader]:
        """Return the newest runs first."""
        ...

    def add_points(self, run: str, stage: str, attempt: int, points: Sequence[Points]) -> None:
        """Commit metric points; a point that is there already is not added again."""
        ...

    def points(self, run: str, after: int = 0, limit: int = 10_000) -> Sequence[Point]:
        """Return metric points of `run` with an id above `after`, by id."""
        ...

    def cursor(self, name: str) -> int:
        """Return the number kept under `name`; 0 when there is none."""
        ...

    def set_cursor(self, name: str, value: int) -> None:
        """Keep `value` under `name`."""
        ...

    def request_cancel(self, run: str) -> None:
        """Ask whoever controls `run` to cancel it. Safe to call twice."""
        ...

    def cancel_requested(self, run: str) -> bool:
        """Whether somebody asked for `run` to be cancelled."""
        ...

    def remember(self, key: str, result: Succeeded, run: str) -> None:
        """Keep the result of a stage for reuse under its cache key."""
        ...

    def recall(self, key: str) -> tuple[Succeeded, str] | None:
        """Return a kept result and the run that made it."""
        ...


class ArtifactStore(Protocol):
    """Immutable folders under a base URI. Raises `ArtifactError`."""

    def scratch(self, name: str) -> Path:
        """Return a new empty local folder to fill; it disappears when committed or dropped."""
        ...

    def commit(self, folder: Path, name: str, meta: Mapping[str, str]) -> ArtifactRef:
        """Store `folder` as artifact `name`: hashes and fsyncs, manifest last, then renames.

        Raises:
            ArtifactError: It exists already with other contents, or there is no space.
        """
        ...

    def drop(self, folder: Path) -> None:
        """Remove a scratch folder that will not be committed."""
        ...

    def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local folder with the artifact, every file verified against its hash."""
        ...

    def verify(self, uri: str) -> Manifest:
        """Check every file of the artifact at `uri` against its manifest; return that."""
        ...

    def newest(self, prefix: str) -> tuple[str, ArtifactRef] | None:
        """Return the last, by name, of the artifacts under `prefix` that verifies."""
        ...


class Tracker(Protocol):
    """A projection of the event store for people. Never raises, never blocks the pipeline."""

    def notify(self) -> None:
        """Say that there is something new in the store."""
        ...

    def close(self, timeout: float) -> bool:
        """Write what is left, at most for `timeout` seconds; return whether all is written."""
        ...


class Clock(Protocol):
    """Time, in seconds."""

    def now(self) -> float:
        """Return seconds since the epoch."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; a test's clock returns at once."""
        ...


Observer: TypeAlias = Callable[[str, int, Message], None]
