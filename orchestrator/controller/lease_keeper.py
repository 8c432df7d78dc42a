"""The lease of a run: that its controller lives, said every few seconds by a thread of its own.

So a controller whose loop is held up, by a slow store or a large artifact, is not taken for gone.
One whose loop is dead is: nothing is said any more for a loop that has made no turn for long.
Intervals are monotonic; the time in a lease is that of the database, for other hosts judge it.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Self

from orchestrator.core.errors import StaleControllerError
from orchestrator.core.runs.run import Run
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.messages import Lease
from orchestrator.ports import Clock, Leases

SECONDS_OF_A_LEASE = 5.0
SECONDS_BETWEEN_LOOKS = 0.5
SECONDS_OF_A_DEAD_LOOP = 1800.0
SECONDS_TO_STOP = 5.0
UNTOLD = "leases were not renewed in time"


class LeaseKeeper:
    """Keeps the lease of one run, in its thread while it is entered, else at each turn."""

    def __init__(
        self,
        leases: Leases,
        clock: Clock,
        holder: str = "",
        best_effort: BestEffort | None = None,
    ) -> None:
        """Hold nothing yet; `holder` names this process in the lease."""
        self._leases, self._clock, self._holder = leases, clock, holder
        self._best_effort = best_effort or BestEffort()
        self._run, self._epoch = "", 0
        self._turned = self._next_lease = self._next_look = 0.0
        self._stale: StaleControllerError | None = None
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self.pause = SECONDS_BETWEEN_LOOKS

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread = threading.Thread(target=self._work, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        """Stop it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(SECONDS_TO_STOP)

    def turn(self, run: Run) -> None:
        """Take notice that the loop lives, and has `run`.

        Raises:
            StaleControllerError: Another controller has the run: one that has nothing to commit
                would not notice.
        """
        self._turned = self._clock.monotonic()
        begun = self._epoch != run.epoch
        self._run, self._epoch = run.header.run, run.epoch
        if begun or self._thread is None:  # at once: what the run began with may be old by now
            self.keep()
        if self._stale is not None:
            raise self._stale

    def keep(self) -> None:
        """Renew the lease, or look whether it is ours still, when it is time for that."""
        with self._lock:
            now = self._clock.monotonic()
            dead = now - self._turned > SECONDS_OF_A_DEAD_LOOP
            if not self._epoch or self._stale is not None or dead:
                return
            if now >= self._next_lease:
                self._next_lease = now + SECONDS_OF_A_LEASE
                self._next_look = now + SECONDS_BETWEEN_LOOKS
                self._renew()
            elif now >= self._next_look:
                self._next_look = now + SECONDS_BETWEEN_LOOKS
                self._check_epoch()

    def _renew(self) -> None:
        mine = Lease(run=self._run, epoch=self._epoch, at=0.0, holder=self._holder)
        renewed = outcome(lambda: self._leases.renew_lease(replace(mine, at=self._leases.now())))
        error = renewed.error
        if error is not None:
            self._next_lease = self._clock.monotonic() + SECONDS_BETWEEN_LOOKS
            self._best_effort.failed(UNTOLD, error)

    def _check_epoch(self) -> None:
        lease = outcome(lambda: self._leases.lease(self._run)).value
        if lease and lease.epoch > self._epoch:
            message = f"run {self._run!r} has a controller of epoch {lease.epoch!r}"
            raise StaleControllerError(message)

    def _work(self) -> None:
        while not self._stopping.wait(self.pause):
            try:
                self.keep()
            except StaleControllerError as error:
                self._stale = error
