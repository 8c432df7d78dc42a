"""The events of all runs, numbered within each."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import Event
from orchestrator.messages import Lease


@dataclass(frozen=True, slots=True)
class Stored:
    """An event as it was committed: its number in the run and its time (seconds, epoch)."""

    run: str
    seq: int
    at: float
    event: Event


class EventLog(Protocol):
    """Append-only memory of all runs. Raises `StoreError` for what the database refuses."""

    def now(self) -> float:
        """Return the time by the clock of the store (seconds, epoch): those of hosts differ."""
        ...

    def create(self, header: RunHeader, at: float) -> None:
        """Add a run. Raises `StoreError` when its id exists."""
        ...

    def append(
        self, run: str, seq: int, events: Sequence[Event], at: float, lease: Lease | None = None
    ) -> None:
        """Commit `events` as numbers `seq`, `seq + 1`, ... of `run`, all or none.

        A `lease` on the run is noted with them, or not at all: a controller that has begun holds
        its run from that moment on.

        Raises:
            StaleControllerError: Number `seq` exists: another controller has this run.
        """
        ...

    def events(self, run: str, after: int = 0) -> Sequence[Stored]:
        """Return the events of `run` numbered above `after`, in order."""
        ...

    def events_of(self, runs: Collection[str]) -> Mapping[str, Sequence[Stored]]:
        """Return all events of each of `runs`, in order; by one question for many runs."""
        ...

    def header(self, run: str) -> RunHeader:
        """Return the header of `run`, by id or unique prefix. Raises `NotFoundError`."""
        ...

    def runs(self, limit: int = 50) -> Sequence[RunHeader]:
        """Return the newest runs first."""
        ...
