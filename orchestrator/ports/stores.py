"""What is kept: the events and points of all runs, and artifacts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.core.artifact import ArtifactRef, FileEntry, Hashed, Manifest
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import Event
from orchestrator.core.trust.qualification import Verdict
from orchestrator.messages import Busy, Lease, Points, Queued, Succeeded, Untold


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
        """Commit metric points; a point that is there already is not added again.

        Raises:
            UnstorableError: Some can't be stored; all others are.
        """
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

    def renew_lease(self, lease: Lease) -> None:
        """Note that a controller has its run.

        Raises:
            StaleControllerError: One of a later epoch has it.
        """
        ...

    def lease(self, run: str) -> Lease | None:
        """Return when a controller of `run` last showed life; `None` after it has left."""
        ...

    def leases(self) -> Sequence[Lease]:
        """Return the leases of all runs whose controller has not left, dead ones included."""
        ...

    def drop_lease(self, run: str, epoch: int) -> None:
        """Note that the controller of `epoch` has left `run`. Safe to call twice."""
        ...

    def note_untold(self, run: str, untold: Sequence[Untold]) -> None:
        """Keep what could not be told of `run`, over what was kept of it before."""
        ...

    def note_busy(self, run: str, busy: Sequence[Busy]) -> None:
        """Keep what the attempts of `run` are busy with, over what was kept of it before."""
        ...

    def busy(self, run: str) -> Sequence[Busy]:
        """Return what the attempts of `run` are busy with, as was said last."""
        ...

    def untold(self, run: str) -> Sequence[Untold]:
        """Return what could not be told of `run`."""
        ...

    def drain(self, pool: str, reason: str) -> None:
        """Note that `pool` is to be emptied. Safe to call twice; the last reason stays."""
        ...

    def undrain(self, pool: str) -> None:
        """Note that `pool` is to be used again. Safe to call twice."""
        ...

    def drained(self) -> Mapping[str, str]:
        """Return the pools that are to be emptied, with the reasons."""
        ...

    def approve(self, run: str, stage: str, by: str) -> None:
        """Note that `by` approves `stage` of `run`. Raises `NotFoundError` for no such run."""
        ...

    def approvals(self, run: str) -> Mapping[str, str]:
        """Return who approved which stages of `run`."""
        ...

    def queue_up(self, run: str, entries: Sequence[Queued], at: float) -> None:
        """Make `entries` what `run` waits for as of `at` (seconds, epoch), instead of before."""
        ...

    def queue(self, since: float) -> Sequence[Queued]:
        """Return what all runs wait for that said so at `since` (seconds, epoch) or later."""
        ...

    def note_verdict(self, verdict: Verdict) -> None:
        """Keep a verdict on a pool as it is configured, in place of an earlier one."""
        ...

    def verdicts(self) -> Sequence[Verdict]:
        """Return the last verdict on each pool, by role and by how it is configured."""
        ...

    def request_cancel(self, run: str) -> None:
        """Ask whoever controls `run` to cancel it. Safe to call twice."""
        ...

    def withdraw_cancel(self, run: str) -> None:
        """Take back that `run` shall be cancelled: it is to go on after all."""
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
    """Immutable folders under a base URI, and marks beside them.

    Raises `ArtifactError`; of that, `StorageError` where the storage is away, full or forbidden,
    and `DamagedError` where what is stored is not as it was.
    """

    def scratch(self, name: str) -> Path:
        """Return a new empty local folder to fill; it disappears when committed or dropped."""
        ...

    def commit(
        self,
        folder: Path,
        name: str,
        meta: Mapping[str, str],
        hashed: Mapping[str, Hashed] | None = None,
    ) -> ArtifactRef:
        """Store `folder` as artifact `name`: hashes and fsyncs, manifest last, then renames.

        Files that are `hashed`, by their path, and not changed since, aren't read again.

        Raises:
            ArtifactError: It exists already with other contents, or there is no space.
        """
        ...

    def drop(self, folder: Path) -> None:
        """Remove a scratch folder, or one of a part, that will not be committed."""
        ...

    def part(self, name: str, part: str) -> Path:
        """Return a new empty local folder to fill with one `part` of artifact `name`."""
        ...

    def add(self, folder: Path, name: str, part: str) -> Mapping[str, FileEntry]:
        """Hash and flush what fills a part, and bring it where the others are gathered.

        Returns the files by their path in the artifact. The folder isn't the caller's any more.
        """
        ...

    def seal(
        self, name: str, files: Mapping[str, FileEntry], meta: Mapping[str, str]
    ) -> ArtifactRef:
        """Make artifact `name` appear, of all its parts: manifest last, then rename.

        Raises:
            DamagedError: The parts have fewer or more files than `files`.
        """
        ...

    def weight(self, name: str) -> int:
        """Return the bytes of all that lies under this name, whole or in parts: it may grow."""
        ...

    def remove(self, name: str) -> None:
        """Take away what has this name, whole or torn, an artifact or a mark."""
        ...

    def mark(self, name: str, text: str) -> None:
        """Keep a short text under `name`, all of it or nothing, over what it said before."""
        ...

    def marked(self, name: str) -> str | None:
        """Return the text kept under `name`; `None` where there is none."""
        ...

    def fetch(self, ref: ArtifactRef) -> Path:
        """Return a local folder with the artifact, every file verified against its hash."""
        ...

    def read(self, ref: ArtifactRef, path: str) -> bytes:
        """Return a small file of an artifact, verified against its hash; no other is fetched."""
        ...

    def verify(self, uri: str) -> Manifest:
        """Check every file of the artifact at `uri` against its manifest; return that."""
        ...

    def manifest(self, name: str) -> Manifest:
        """Return the manifest of artifact `name`; its files are not looked at.

        Raises:
            DamagedError: There is none, or it is torn or altered.
        """
        ...

    def load(
        self, name: str, *, mine: Callable[[str], bool] | None = None
    ) -> tuple[Path, Manifest]:
        """Return a local folder with artifact `name`, every file verified, and its manifest.

        Where it lies on this machine, or one that it shares, only the files that are `mine` are
        hashed: somebody else does that with the others.

        Raises:
            DamagedError: It is torn, altered or not there.
        """
        ...

    def names(self, prefix: str) -> Sequence[str]:
        """Return the names of what lies right under `prefix`, whole or not."""
        ...
