"""From a run that is recorded to one that a controller has.

A run that fails in between ends with its reason, and waits for nobody. One that is handed to a
job on the cluster is looked after until the job has it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from orchestrator.controller.lease import LeasedRuns
from orchestrator.core.errors import ClusterError, StoreError
from orchestrator.core.runs.fold import begin, fold
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.core.runs.states import (
    CancelRequested,
    Event,
    RunCancelled,
    RunFailed,
    StageCancelled,
)
from orchestrator.core.settings import Settings
from orchestrator.error_boundary import reason
from orchestrator.ports import Clock, ClusterJob, EventLog

SECONDS_BETWEEN_LOOKS = 0.3
RUNS = "RUNNING"
ENDS = frozenset({"STOPPED", "SUCCEEDED", "FAILED"})


@dataclass(frozen=True, slots=True)
class HandOverPatience:
    """Seconds that a job may take to `begin`, and one that runs until it has its `run`."""

    begin: float
    run: float


def hand_over_patience(settings: Settings) -> HandOverPatience:
    """Return the patience with a job that waits itself: for its cluster, storage and nodes.

    Each node has its time to begin to answer what it reads, and again to answer.
    """
    begin, nodes = settings.cluster.hand_over, 2 * settings.storage.answer
    waits = settings.cluster.patience + settings.attempts.storage + nodes
    return HandOverPatience(begin, begin + waits)


def hand_over(
    job: ClusterJob, store: LeasedRuns, before: Run, clock: Clock, patience: HandOverPatience
) -> None:
    """Wait until `job` holds the run, which stood as `before` when the job was submitted.

    It has its time to be begun by the cluster, and then, for as long as it runs, to have the run.

    Raises:
        ClusterError: The job has ended, or does not have it in time; it is stopped.
    """
    name, status, until = before.header.run, "", clock.monotonic() + patience.begin
    while not _has_controller(store, before):
        now, last = job.status(), status
        status = now or last
        if status != last:
            seconds = patience.run if status == RUNS else patience.begin
            until = clock.monotonic() + seconds
        if status in ENDS or clock.monotonic() > until:
            break
        clock.sleep(SECONDS_BETWEEN_LOOKS)
    else:
        return
    said = job.last_words() or "its log is empty"
    job.stop()
    late = f"has ended: {status}" if status in ENDS else f"has not begun: {status or 'unknown'}"
    raise ClusterError(f"the job that was to drive run {name!r} {late}; it said: {said}")


def _has_controller(store: LeasedRuns, before: Run) -> bool:
    """Return whether a controller that came after `before` holds the run, or has ended it."""
    events = store.events(before.header.run)
    run = fold(before.header, ((item.at, item.event) for item in events))
    if run.epoch <= before.epoch or run.done:
        return run.epoch > before.epoch
    lease = store.lease(before.header.run)
    return lease is not None and lease.epoch == run.epoch


@contextmanager
def begun(store: EventLog, header: RunHeader) -> Iterator[None]:
    """End the run for the reason of whatever comes out of this, unless it has begun by then."""
    try:
        yield
    except KeyboardInterrupt:
        never_began(store, header, "interrupted before it began", cancelled=True)
        raise
    except BaseException as error:
        never_began(store, header, f"it never began: {type(error).__name__}: {reason(error)}")
        raise


def never_began(store: EventLog, header: RunHeader, why: str, *, cancelled: bool = False) -> bool:
    """End a run that no controller has had yet; return whether it is ended now.

    Where the store is away too the run stays as it is, which is shown as lost before long.
    """
    ends: tuple[Event, ...] = (RunFailed(why),)
    if cancelled:
        stages = map(StageCancelled, begin(header).stages)
        ends = (CancelRequested(why), *stages, RunCancelled())
    with suppress(StoreError):  # one that has events has begun
        store.append(header.run, 1, ends, store.now())
        return True
    return False
