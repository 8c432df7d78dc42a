"""A run as a value: its header, which never changes, and where its stages and attempts stand.

Only `fold.py` makes one; everybody else reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from orchestrator.core import prices
from orchestrator.core.artifact import ArtifactRef, ShippedCode
from orchestrator.core.failures.kinds import Failure
from orchestrator.core.runs.states import AttemptState, RunState, StageState
from orchestrator.core.runs.transitions import ATTEMPT_ENDS, RUN_ENDS, STAGE_ENDS
from orchestrator.core.spec.plan import Plan, PlannedStage
from orchestrator.core.spec.policy import AS_PLANNED, Adjust
from orchestrator.core.spec.stages import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class RunHeader:
    """What is known when a run is created: made by who launches it, read from the database by all.

    `config` is the resolved config, `flags` and `overrides` what the user typed to choose it,
    `tags` go to the tracker. `created` is seconds since the epoch. `continues` names an earlier
    run: stages with the same job, parameters and inputs go on from its checkpoints. `code` is the
    code of its jobs as it travels to the nodes; with `None` they import what is there.
    """

    run: str
    plan: Plan
    config: Mapping[str, Json] = field(default_factory=dict)
    overrides: tuple[str, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    created: float = 0.0
    continues: str = ""
    flags: tuple[str, ...] = ()
    code: ShippedCode | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One execution of a stage on one pool. Times in seconds since the epoch.

    `followed` says what followed its failure, and why; empty while that is not decided.
    `epoch` is that of the controller that started it. `nodes` are those of its workers, by rank:
    an elastic gang may have fewer than its stage asks for; `software` has the versions, by name,
    that the first of them runs. `resumed` is the step of the
    checkpoint that it went on from, `saved` those of the newest checkpoints that it made: of all
    that are kept, and some before them. `waits` says
    why it has no place, since `waits_since`, and `queued` whether others hold the pool; `leaving`
    why it was asked to leave, at `leaving_since`; `goes_to` the pool of the next one, if known.
    """

    stage: str
    number: int
    pool: str
    state: AttemptState
    started: float
    epoch: int = 0
    placed: float | None = None
    ended: float | None = None
    nodes: tuple[str, ...] = ()
    software: Mapping[str, str] = field(default_factory=dict)
    waits: str = ""
    waits_since: float | None = None
    queued: bool = False
    leaving: str = ""
    leaving_since: float | None = None
    goes_to: str = ""
    resumed: int | None = None
    saved: tuple[int, ...] = ()
    failure: Failure | None = None
    followed: str = ""
    metrics: Mapping[str, float] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        """Whether it still runs, or waits for its place."""
        return self.state not in ATTEMPT_ENDS


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """A stage of a run. `pool` is where its next or latest attempt goes.

    `adjust` is what that attempt does otherwise than planned; `hold_reason` says why it can't
    start yet, and `held_since` since when (seconds, epoch).
    `gate_since` is when the stage came to its gate (seconds, epoch), `gate_opened` why it passed.
    `avoid` names the nodes of the pool on which no worker is placed. The first `forgiven` attempts
    count against no limit of attempts: somebody had the run go on since. `anew` says that it was
    asked to use no checkpoint and no earlier result.
    """

    planned: PlannedStage
    state: StageState = StageState.PENDING
    pool: str
    not_before: float = 0.0
    adjust: Adjust = AS_PLANNED
    avoid: tuple[str, ...] = ()
    forgiven: int = 0
    anew: bool = False
    hold_reason: str = ""
    held_since: float | None = None
    gate_since: float | None = None
    gate_opened: str = ""
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
        return self.state in STAGE_ENDS

    @property
    def lacking(self) -> int:
        """How many workers its gang, which is elastic and runs, has less than it asks for."""
        latest = self.attempts[-1:]
        if not latest or not latest[0].active or latest[0].placed is None or latest[0].leaving:
            return 0
        placed = self.planned.stage.on_pool(latest[0].pool)
        if placed.needs.min_workers is None:
            return 0
        return max(placed.needs.workers - len(latest[0].nodes), 0)

    @property
    def waits_for(self) -> str:
        """Why it doesn't run though those before it are done; empty where it does."""
        if self.state is StageState.PENDING:
            return self.hold_reason
        waits = self.state is StageState.RUNNING and self.attempts[-1].placed is None
        return self.attempts[-1].waits if waits else ""

    @property
    def failovers(self) -> int:
        """How often the stage moved to another pool."""
        pools = [attempt.pool for attempt in self.attempts]
        return sum(a != b for a, b in pairwise(pools))

    @property
    def checkpoints(self) -> tuple[int, ...]:
        """Steps of the newest that count, oldest first; a resume cuts off what is later."""
        kept: list[int] = []
        for attempt in self.attempts:
            if attempt.resumed is not None or attempt.saved:
                kept = [step for step in kept if step <= (attempt.resumed or 0)]
            kept.extend(attempt.saved)
        return tuple(kept)

    @property
    def kept(self) -> tuple[int, ...]:
        """Steps of the checkpoints that are there still, oldest first: the newest that count."""
        return self.checkpoints[-self.planned.stage.recovery.kept :]

    def advanced(self, index: int) -> bool:
        """Whether attempt `index` saved a checkpoint of a later step than all before it."""
        earlier = self.attempts[self.forgiven if self.anew else 0 : index]
        before = max((max(a.saved) for a in earlier if a.saved), default=-1)
        return max(self.attempts[index].saved, default=-1) > before

    @property
    def begins_anew(self) -> bool:
        """Whether its next attempt uses no checkpoint: it shall begin anew, and has none yet."""
        return self.anew and not any(a.saved for a in self.attempts[self.forgiven :])

    def seconds(self, now: float) -> float:
        """Return how long its attempts took up to `now`, waits for their places included."""
        return sum((now if a.ended is None else a.ended) - a.started for a in self.attempts)

    @property
    def lost_steps(self) -> int:
        """Steps that were done twice: from where an attempt resumed to where the last one failed.

        What nobody has resumed yet isn't lost yet.
        """
        lost, reached = 0, None
        for attempt in self.attempts:
            step = attempt.failure.step if attempt.failure else None
            began = attempt.resumed is not None or attempt.saved or step is not None
            if reached is not None and (began or attempt.state is AttemptState.SUCCEEDED):
                lost += max(0, reached - (attempt.resumed or 0))
                reached = None
            reached = reached if step is None else step
        return lost

    def device_hours(self, now: float) -> float:
        """Return the device-hours that its attempts held, up to `now`."""
        return sum(self.attempt_hours(attempt, now) for attempt in self.attempts)

    def attempt_hours(self, attempt: Attempt, now: float) -> float:
        """Return the device-hours that one of its attempts held, up to `now`."""
        if attempt.placed is None:
            return 0.0
        stage = self.planned.stage.on_pool(attempt.pool)
        workers = len(attempt.nodes) if stage.needs.min_workers is not None else stage.processes
        end = now if attempt.ended is None else attempt.ended
        return prices.device_hours(workers * stage.needs.devices, end - attempt.placed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a pipeline, after `seq` events, the last of them at `at`.

    Controllers that are done with it have driven it for `driven` seconds; the present one does
    `since` then, and the one before it was last seen at `lost_at` (seconds, epoch).
    """

    header: RunHeader
    state: RunState = RunState.PENDING
    stages: Mapping[str, StageRun] = field(default_factory=dict)
    seq: int = 0
    epoch: int = 0
    started: float | None = None
    ended: float | None = None
    reason: str = ""
    at: float | None = None
    driven: float = 0.0
    since: float | None = None
    lost_at: float | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return self.header.plan

    @property
    def done(self) -> bool:
        """Whether its state is terminal."""
        return self.state in RUN_ENDS

    @property
    def active(self) -> tuple[Attempt, ...]:
        """Attempts that run or wait for their place."""
        return tuple(a for stage in self.stages.values() for a in stage.attempts[-1:] if a.active)

    @property
    def failovers(self) -> int:
        """How often any stage moved to another pool."""
        return sum(stage.failovers for stage in self.stages.values())

    @property
    def lost_steps(self) -> int:
        """Steps that were done twice, of all stages."""
        return sum(stage.lost_steps for stage in self.stages.values())

    def seconds(self, now: float) -> float:
        """Return for how long controllers have driven it up to `now`."""
        return self.driven + (now - self.since if self.since is not None else 0.0)

    def spent(self, now: float) -> float | None:
        """Return the cost so far in US dollars, `None` where any price of it is unknown."""
        return prices.total(stage_cost(self, name, now) for name in self.stages)

    def known_cost(self, now: float) -> float:
        """Return what is known of the cost so far in US dollars: the least it can be."""
        return sum(known_cost(self, name, now) for name in self.stages)


def stage_cost(run: Run, name: str, now: float) -> float | None:
    """Return the cost of a stage so far, US dollars; `None` where any price of it is unknown."""
    return prices.total(_costs(run, name, now))


def known_cost(run: Run, name: str, now: float) -> float:
    """Return what is known of the cost of a stage so far, US dollars."""
    return sum(cost for cost in _costs(run, name, now) if cost is not None)


def _costs(run: Run, name: str, now: float) -> Iterator[float | None]:
    stage = run.stages[name]
    for attempt in stage.attempts:
        hours = stage.attempt_hours(attempt, now)
        yield prices.money(hours, run.plan.pools[attempt.pool].price)
