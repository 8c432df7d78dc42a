"""Looks after runs whose controller is gone: they go on, or what is shown of them ends.

One that may go on by itself is taken over. What is shown of any other must not run for ever; the
database is left as it is, so that it can be resumed. A controller is taken for gone when two looks
in a row have found the same lease dead: a machine that was asleep wakes up with old leases, and
renews them. A run that can't be read is told once, does not keep others from their burial, and is
given up after a while. One that only others might take over is left to them for a while.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from orchestrator.controller.lease import LeasedRuns, Lives, alive
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.messages import Lease
from orchestrator.ports import Stored

# Unseen controllers are given twice the time that a takeover waits: nobody asked for this.
SECONDS_TO_WAIT = 30.0
SECONDS_FOR_OTHERS = 90.0  # since a controller was last seen, for who can take its run over
MOST_TRIES = 20  # to bury a run that can't be read


@dataclass(frozen=True, slots=True)
class Declined:
    """Why a run is not taken over.

    Attributes:
        reason: What stands in the way.
        others: Whether another reaper might do it, or this one later.
        patience: For how many seconds since its controller was last seen that may be at the least.
    """

    reason: str
    others: bool
    patience: float = 0.0


Bury: TypeAlias = Callable[[Run, str], bool]
TakeOver: TypeAlias = Callable[[Run, Sequence[Stored]], Declined | None]


def nobody_takes_over(_run: Run, _events: Sequence[Stored]) -> Declined | None:
    """Take no run over."""
    return Declined("nobody takes it over", others=False)


class Reaper:
    """Buries runs, or has them go on.

    `bury` ends what is shown of one, for a reason, and returns whether it did. `take_over` has a
    run with such events go on, and returns `None`, also while that is on its way; or why not.
    """

    def __init__(
        self,
        store: LeasedRuns,
        lives: Lives,
        bury: Bury,
        take_over: TakeOver = nobody_takes_over,
    ) -> None:
        """Suspect nobody yet."""
        self._store, self._lives, self._bury = store, lives, bury
        self._take_over = take_over
        self._suspected: frozenset[Lease] = frozenset()
        self._best_effort = BestEffort()
        self._tries: Counter[str] = Counter()

    def reap(self) -> bool:
        """Look at all leases once, and bury; return whether any is left to look after."""
        now, leases = self._store.now(), self._store.leases()
        dead = {lease for lease in leases if not alive(lease, now, self._lives, SECONDS_TO_WAIT)}
        buried = {lease for lease in dead & self._suspected if self._try(lease)}
        self._suspected = frozenset(dead - buried)
        return len(buried) < len(leases)

    def _try(self, lease: Lease) -> bool:
        done = outcome(lambda: self._end(lease), but=())
        if done.error is None:
            self._tries.pop(lease.run, None)
            return bool(done.value)
        self._best_effort.failed(f"burials of run {lease.run} were not possible", done.error)
        self._tries[lease.run] += 1
        if self._tries[lease.run] < MOST_TRIES:
            return False
        del self._tries[lease.run]
        drop = partial(self._store.drop_lease, lease.run, lease.epoch)
        return self._best_effort.tell(f"leases of run {lease.run} were not dropped", drop)

    def _end(self, lease: Lease) -> bool:
        header = self._store.header(lease.run)
        events = self._store.events(lease.run)
        run = fold(header, ((item.at, item.event) for item in events))
        reason = "its controller has stopped before the end"
        if not lease.left_in_order:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lease.at))
            reason = f"the controller was last seen at {since}"
            declined = None if run.done else self._take_over(run, events)
            if not run.done and declined is None:
                return False  # its next controller has the lease
            if declined is not None:
                reason += f"; {declined.reason}"
                waits = max(SECONDS_FOR_OTHERS, declined.patience)
                if declined.others and self._store.now() - lease.at < waits:
                    return False
        if not self._bury(run, f"{reason}; orchestrator resume {lease.run} goes on"):
            return False
        self._store.drop_lease(lease.run, lease.epoch)
        return True
