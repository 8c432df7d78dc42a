"""What decides is recorded, however long that takes; what tells of it is recorded when it can be.

A database may be away for a while: its server is being restarted, its disk is full, somebody holds
a lock. Workers run on meanwhile. So a commit is tried again for a while, and only then does the
run end here, to be resumed later. Metric points wait in memory, as many as there is room for.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice, takewhile
from typing import TypeVar

from orchestrator.core.errors import NotFoundError, StaleControllerError, UnstorableError
from orchestrator.core.runs.states import Event
from orchestrator.core.settings import DatabaseSettings
from orchestrator.error_boundary import BestEffort, Outcome, outcome, reason
from orchestrator.messages import Lease, Points
from orchestrator.ports import Clock, EventLog, MetricPoints, Stored

logger = logging.getLogger(__name__)

T = TypeVar("T")
PATIENCE_SECONDS = DatabaseSettings().patience
SHORTEST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
MOST_POINTS = 100_000
POINTS_AT_ONCE = 1_000
# An answer that no further try changes.
FINAL = (StaleControllerError, UnstorableError, NotFoundError)


class EventRecorder:
    """The event log as the controller of `run` uses it: with `patience` seconds of patience."""

    def __init__(
        self, log: EventLog, run: str, clock: Clock, patience: float = PATIENCE_SECONDS
    ) -> None:
        """Ask nothing yet."""
        self._log, self._run, self._clock = log, run, clock
        self._patience = patience

    def events(self) -> Sequence[Stored]:
        """Return the events of the run. Raises `StoreError` when the patience is over."""
        return self.patiently(lambda: self._log.events(self._run))

    def append(self, seq: int, event: Event, at: float, lease: Lease | None = None) -> None:
        """Commit `event` as number `seq`, of the time `at` (seconds, epoch), with the `lease`.

        Raises:
            StaleControllerError: Another controller has this run.
            UnstorableError: The event can't be stored.
            StoreError: The patience is over.
        """
        tries = 0

        def commit() -> None:
            nonlocal tries
            tries += 1
            try:
                self._log.append(self._run, seq, (event,), at, lease)
            except StaleControllerError:
                if tries == 1 or not self._is_ours(Stored(self._run, seq, at, event)):
                    raise

        self.patiently(commit)

    def _is_ours(self, mine: Stored) -> bool:
        """Whether an earlier try went through, and only its answer was lost."""
        stored = next(iter(self._log.events(self._run, mine.seq - 1)), None)
        return stored == mine or repr(stored) == repr(mine)  # NaN is not equal to itself

    def patiently(self, call: Callable[[], T], patience: float | None = None) -> T:
        """Return what `call` does, tried until the patience is over."""
        seconds = self._patience if patience is None else patience
        until = self._clock.monotonic() + seconds
        pause, warned = SHORTEST_PAUSE, False
        while True:
            done: Outcome[T] = outcome(call, but=FINAL)
            if done.error is None:
                break
            if self._clock.monotonic() + pause > until:
                raise done.error
            if not warned:
                warned = True
                wait = f"tried again for {seconds:g} s, while all that runs runs on"
                logger.warning("%s; %s", reason(done.error), wait)
            self._clock.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
        return done.value  # type: ignore[return-value] # what the call returned


class PointsBuffer:
    """Metric points on their way to the store: kept while it is away, the oldest go first."""

    UNTOLD = "metric points were not stored"

    def __init__(
        self,
        store: MetricPoints,
        run: str,
        clock: Clock,
        best_effort: BestEffort,
        most: int = MOST_POINTS,
    ) -> None:
        """Hold nothing."""
        self._store, self._run, self._clock = store, run, clock
        self._best_effort, self._most = best_effort, most
        self._unstored: deque[tuple[str, int, Points]] = deque()
        self._pause, self._next = SHORTEST_PAUSE, 0.0
        self._error: Exception = RuntimeError("the run ended")

    def add(self, stage: str, attempt: int, points: Sequence[Points]) -> None:
        """Take points in."""
        self._unstored.extend((stage, attempt, point) for point in points)
        over = max(0, len(self._unstored) - self._most)
        for _ in range(over):
            self._unstored.popleft()
        if over:
            self._best_effort.failed(self.UNTOLD, self._error, over)

    def flush(self, *, last: bool = False) -> bool:
        """Store what is held, where it is time for that; return whether any was stored.

        The `last` time what can't be stored is counted.
        """
        before = len(self._unstored)
        if before and (last or self._clock.monotonic() >= self._next):
            while self._unstored and self._store_some():
                pass
        stored = len(self._unstored) < before
        if last and self._unstored:
            self._best_effort.failed(self.UNTOLD, self._error, len(self._unstored))
        return stored

    def _store_some(self) -> bool:
        """Store the first of what is held; return whether there is no need to hold it longer."""
        stage, attempt, _ = self._unstored[0]
        first = takewhile(lambda entry: entry[:2] == (stage, attempt), self._unstored)
        some = [points for _, _, points in islice(first, POINTS_AT_ONCE)]
        done = outcome(lambda: self._store.add_points(self._run, stage, attempt, some))
        if isinstance(done.error, UnstorableError):
            self._best_effort.failed(self.UNTOLD, done.error)
        elif done.error is not None:
            self._error = done.error
            self._next = self._clock.monotonic() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
            return False
        self._pause, self._next = SHORTEST_PAUSE, 0.0
        for _ in some:
            self._unstored.popleft()
        return True
