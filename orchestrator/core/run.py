"""A run as a value: its header, which never changes, and where its stages and attempts stand.

Only `fold.py` makes one; everybody else reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from orchestrator.core import cost
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.failure import Failure
from orchestrator.core.plan import Plan, PlannedStage
from orchestrator.core.spec import Json
from orchestrator.core.state import (
    ATTEMPT_TRANSITIONS,
    RUN_TRANSITIONS,
    STAGE_TRANSITIONS,
    AttemptState,
    RunState,
    StageState,
    terminal,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What is known when a run is created.

    `config` is the resolved config, `overrides` what the user typed, `tags` go to the tracker.
    `created` is seconds since the epoch.
    """

    run: str
    plan: Plan
    config: Mapping[str, Json] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a stage on one pool. Times in seconds since the epoch."""

    stage: str
    number: int
    pool: str
    state: AttemptState
    started: float
    placed: float | None = None
    ended: float | None = None
    nodes: tuple[str, ...] = ()
    failure: Failure | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether it still runs, or waits for its place."""
        return not terminal(ATTEMPT_TRANSITIONS, self.state)


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """A stage of a run. `pool` is where its next or latest attempt goes."""

    planned: PlannedStage
    state: StageState = StageState.PENDING
    pool: str
    not_before: float = 0.0
    attempts: tuple[Attempt, ...] = ()
    artifact: ArtifactRef | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    reused_from: str | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.planned.stage.name

    @property
    def done(self) -> bool:
        """Whether its state is terminal."""
        return terminal(STAGE_TRANSITIONS, self.state)

    @property
    def failovers(self) -> int:
        """How often the stage moved to another pool."""
        pools = [attempt.pool for attempt in self.attempts]
        return sum(a != b for a, b in pairwise(pools))

    def device_hours(self, now: float) -> float:
        """Return the device-hours that its attempts held, up to `now`."""
        placed = ((a.placed, a.ended) for a in self.attempts if a.placed is not None)
        seconds = sum((now if ended is None else ended) - start for start, ended in placed)
        return cost.device_hours(self.planned.devices, seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a pipeline, after `seq` events."""

    header: RunHeader
    state: RunState = RunState.PENDING
    stages: Mapping[str, StageRun] = field(default_factory=dict)
    seq: int = 0
    epoch: int = 0
    started: float | None = None
    ended: float | None = None
    reason: str = ""

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return self.header.plan

    @property
    def done(self) -> bool:
        """Whether its state is terminal."""
        return terminal(RUN_TRANSITIONS, self.state)

    @property
    def active(self) -> tuple[Attempt, ...]:
        """Attempts that run or wait for their place."""
        return tuple(a for stage in self.stages.values() for a in stage.attempts[-1:] if a.active)

    @property
    def failovers(self) -> int:
        """How often any stage moved to another pool."""
        return sum(stage.failovers for stage in self.stages.values())

    def spent(self, now: float) -> float:
        """Return the known cost so far in US dollars; pools of unknown price count nothing."""
        return sum(stage_cost(self, name, now) for name in self.stages)


def stage_cost(run: Run, name: str, now: float) -> float:
    """Return the known cost of a stage so far, US dollars; unknown prices count nothing."""
    stage = run.stages[name]
    total = 0.0
    for attempt in stage.attempts:
        if attempt.placed is not None:
            end = now if attempt.ended is None else attempt.ended
            hours = cost.device_hours(stage.planned.devices, end - attempt.placed)
            total += cost.money(hours, run.plan.pools[attempt.pool].price) or 0.0
    return total
