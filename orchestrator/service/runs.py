"""Runs as the database has them; approve the gate of a stage."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator import wiring
from orchestrator.controller import lease as leases
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import NotFoundError
from orchestrator.core.nearest import choices
from orchestrator.core.runs.fold import apply, fold
from orchestrator.core.runs.run import Run, RunHeader, StageRun
from orchestrator.core.runs.states import StageState
from orchestrator.core.spec.policy import Gate
from orchestrator.messages import Lease
from orchestrator.ports import EventLog, Leases
from orchestrator.service.change import Change
from orchestrator.supervisor import holder


def find(run: str) -> Run:
    """Return the run whose id is, or begins with, `run`.

    Raises:
        NotFoundError: There is none, or there are several.
    """
    store = wiring.database(wiring.home())
    return load(store, store.header(run))


def load(store: EventLog, header: RunHeader) -> Run:
    """Return the run of `header` as the store has it."""
    return fold(header, ((item.at, item.event) for item in store.events(header.run)))


def stage(run: Run, name: str) -> StageRun:
    """Return the stage of that name.

    Raises:
        NotFoundError: The run has none.
    """
    if name not in run.stages:
        what = f"run {run.header.run!r} has no stage {name!r}"
        raise NotFoundError(f"{what}; stages: {', '.join(run.stages)}")
    return run.stages[name]


def caught_up(store: EventLog, run: Run) -> Run:
    """Return `run` as the store has it now, for which what is new alone is read."""
    for item in store.events(run.header.run, run.seq):
        run = apply(run, item.event, item.at)
    return run


def load_all(store: EventLog, headers: Sequence[RunHeader]) -> list[Run]:
    """Return the runs of `headers` as the store has them."""
    events = store.events_of([header.run for header in headers])
    return [
        fold(header, ((item.at, item.event) for item in events[header.run])) for header in headers
    ]


def lease_state(store: Leases, run: Run) -> LeaseState | None:
    """Return whether the controller of `run` is there; `None` when it needs none, or none came."""
    lease = store.lease(run.header.run)
    return leases.lease_state(run, lease, store.now(), holder.lives)


def last_sign(run: Run, lease: Lease | None) -> float:
    """Return when the run last showed life, in seconds since the epoch."""
    return max(abs(lease.at) if lease else run.header.created, run.at or run.header.created)


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


def approve(run: Run, stage: str) -> Change[None]:
    """Open the gate of a stage, before or after the run has come to it.

    Raises:
        NotFoundError: No such stage waits for an approval.
    """
    name = run.header.run
    waiting = [s.name for s in run.stages.values() if _waits(s.planned.stage.gate)]
    if stage not in waiting:
        hint = choices(stage, waiting, "stages that do") if waiting else "no stage of it does"
        raise NotFoundError(f"stage {stage!r} of run {name!r} waits for no approval; {hint}")

    def make() -> None:
        wiring.database(wiring.home()).approve(name, stage, wiring.user())

    return Change(f"approve stage {stage} of run {name}", make)


def _waits(gate: Gate | None) -> bool:
    return gate is not None and gate.kind == "approval"
