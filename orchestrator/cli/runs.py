"""Reading runs back from the event store, for `status`, `logs`, `cancel` and `ask`."""

from __future__ import annotations

from orchestrator import wiring
from orchestrator.controller import lease as control
from orchestrator.controller.lease import LeasedRuns, LeaseState
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.core.runs.states import StageState
from orchestrator.ports import EventLog, Leases
from orchestrator.supervisor import holder


def load(store: EventLog, header: RunHeader) -> Run:
    """Return the run of `header` as the store has it."""
    return fold(header, ((item.at, item.event) for item in store.events(header.run)))


def lease_state(store: Leases, run: Run) -> LeaseState | None:
    """Return whether the controller of `run` is there; `None` when it needs none, or none came."""
    now = wiring.clock().now()
    return control.lease_state(run, store.lease(run.header.run), now, holder.lives)


def last_sign(store: LeasedRuns, run: Run) -> float:
    """Return when the run last showed life, in seconds since the epoch."""
    lease = store.lease(run.header.run)
    times = [stored.at for stored in store.events(run.header.run)]
    return max([lease.at if lease else run.header.created, *times])


def tried(run: Run) -> list[str]:
    """Return the pools that the run's attempts went to, each once, in order of use."""
    attempts = [attempt for stage in run.stages.values() for attempt in stage.attempts]
    ordered = sorted(attempts, key=lambda attempt: attempt.started)
    return list(dict.fromkeys(attempt.pool for attempt in ordered))


def served(run: Run) -> list[str]:
    """Return the names of the endpoints that the run deployed."""
    return [
        stage.planned.stage.endpoint.name
        for stage in run.stages.values()
        if stage.planned.stage.endpoint and stage.state is StageState.SUCCEEDED
    ]
