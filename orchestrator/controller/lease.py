"""Whether the controller of a run is there: by its lease, and by its process where that is seen.

A lease is judged by the clock that it was written by, the database's: those of hosts differ.

A process that can be looked at is believed over its lease: one that was killed is gone at once,
and one that is only slow keeps its run.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol, TypeAlias

from orchestrator.core.runs.run import Run
from orchestrator.messages import Lease
from orchestrator.ports import EventLog, Leases

# Three renewals: a controller that has missed so many has lost its machine or its store.
SECONDS_OF_DOUBT = 15.0
# A run that was recorded for so long, and that nobody has begun, will not be begun by itself.
SECONDS_TO_BEGIN = 60.0
Lives: TypeAlias = Callable[[str], bool | None]


class LeasedRuns(EventLog, Leases, Protocol):
    """The events of runs, and who has each."""


class LeaseState(StrEnum):
    """What is known of the controller of a run that has not ended."""

    ALIVE = "alive"
    GONE = "gone"


def lease_state(run: Run, lease: Lease | None, now: float, lives: Lives) -> LeaseState | None:
    """Return whether the controller of `run` is there; `None` when it needs none, or had none yet.

    One that should have come by `now`, by the database's clock, is gone. `lives` says of the
    holder of a lease whether it lives, or `None` where it can't be seen.
    """
    if run.done:
        return None
    if lease is None and not run.epoch:
        return LeaseState.GONE if now - run.header.created > SECONDS_TO_BEGIN else None
    lives_on = lease is not None and alive(lease, now, lives)
    return LeaseState.ALIVE if lives_on else LeaseState.GONE


def alive(lease: Lease, now: float, lives: Lives, doubt: float = SECONDS_OF_DOUBT) -> bool:
    """Return whether the holder of `lease` lives; unseen, it does for `doubt` seconds.

    A lease from the future is that of a clock that was set since.
    """
    seen = lives(lease.holder)
    return abs(now - abs(lease.at)) < doubt if seen is None else seen
