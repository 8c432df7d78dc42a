"""The ports that a controller acts through."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.controller.recording import PATIENCE_SECONDS
from orchestrator.error_boundary import BestEffort
from orchestrator.ports import (
    ArtifactStore,
    Clock,
    Cluster,
    EventLog,
    Gates,
    Interventions,
    Leases,
    MetricPoints,
    OutputStore,
    Queues,
    ResultCache,
    RunNotes,
    Serving,
    Tracker,
)


class RunStore(
    EventLog,
    MetricPoints,
    OutputStore,
    Leases,
    Queues,
    Interventions,
    RunNotes,
    ResultCache,
    Protocol,
):
    """What a controller records of its run, and reads of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerPorts:
    """The ports that a controller acts through; `holder` names its process in its lease.

    `service.driving` makes them for a run, its `Controller` acts through them alone.
    `patience` is for how many seconds a commit is tried again while the database is away. `leave`
    is called at each turn, and raises `ClusterError` when the cluster is about to be stopped. `by`
    is the reaper that had the run go on, if one did.
    """

    cluster: Cluster
    serving: Serving
    store: RunStore
    artifacts: ArtifactStore
    tracker: Tracker
    clock: Clock
    gates: Gates
    holder: str = ""
    by: str = ""
    patience: float = PATIENCE_SECONDS
    leave: Callable[[], None] = lambda: None
    best_effort: BestEffort = field(default_factory=BestEffort)
