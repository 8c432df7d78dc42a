"""What to do next: (run, now, outlook) -> commands. Pure; the loop carries the commands out.

Every command moves the run on: calling `decide` again after its commands have been carried out
and their events applied reaches an empty answer, which means wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.limits import (
    exhausted,
    held_too_long,
    out_of_grace,
    over_budget,
    waited_too_long,
)
from orchestrator.core.runs.proven_pools import misplaced, proven
from orchestrator.core.runs.recovery import QUIET, Outlook, follow_up
from orchestrator.core.runs.run import Attempt, Run, StageRun
from orchestrator.core.runs.states import (
    AttemptState,
    Event,
    GateOpened,
    GateReached,
    LeaveRequested,
    RunCancelled,
    RunFailed,
    RunPaused,
    RunState,
    RunSucceeded,
    StageCancelled,
    StageFailed,
    StageHeld,
    StageMoved,
    StagePaused,
    StageSkipped,
    StageState,
)


@dataclass(frozen=True, slots=True)
class Start:
    """Start attempt `number` of `stage` on `pool`, or reuse an earlier result."""

    stage: str
    number: int
    pool: str


@dataclass(frozen=True, slots=True)
class Expire:
    """End an attempt, over a limit or without its controller; it failed for that reason."""

    stage: str
    number: int
    failure: Failure


@dataclass(frozen=True, slots=True)
class Leave:
    """Ask an attempt to leave at its next checkpoint, for the pool that it `goes_to` if known."""

    stage: str
    number: int
    reason: str
    goes_to: str = ""

    @property
    def event(self) -> LeaveRequested:
        """What is committed before it is asked."""
        return LeaveRequested(self.stage, self.number, self.reason, self.goes_to)


@dataclass(frozen=True, slots=True)
class Cancel:
    """End an attempt because the run is being cancelled."""

    stage: str
    number: int


@dataclass(frozen=True, slots=True)
class Record:
    """Commit an event; nothing in the world changes."""

    event: Event


Command: TypeAlias = Start | Expire | Leave | Cancel | Record


def decide(run: Run, now: float, outlook: Outlook = QUIET) -> tuple[Command, ...]:
    """Return what to do at `now` (seconds since the epoch)."""
    if run.state is RunState.CANCELLING:
        return tuple(_wind_down(run))
    if run.state is not RunState.RUNNING:
        return ()
    behind = _behind_a_pause(run)
    if all(stage.done or stage.name in behind for stage in run.stages.values()):
        return (Record(_verdict(run)),)
    broke = over_budget(run, now)
    stages = run.stages.values()
    return tuple(
        command for stage in stages for command in _next(run, stage, now, outlook, broke=broke)
    )


def _behind_a_pause(run: Run) -> frozenset[str]:
    """Return the stages that can't begin before a paused one has gone on."""
    behind: set[str] = set()
    held = {name for name, stage in run.stages.items() if stage.state is StageState.PAUSED}
    for planned in run.plan.stages if held else ():  # in the order in which they depend
        stage = run.stages[planned.stage.name]
        if stage.state is StageState.PENDING and not held.isdisjoint(planned.stage.upstream):
            held.add(stage.name)
            behind.add(stage.name)
    return frozenset(behind)


def at_gate(run: Run) -> tuple[StageRun, ...]:
    """Return the stages that wait at their gates."""
    return tuple(
        stage
        for stage in run.stages.values()
        if stage.state is StageState.PENDING and stage.gate_since is not None
        if not stage.gate_opened
    )


def wanting(run: Run, now: float) -> tuple[StageRun, ...]:
    """Return the stages that want chips of their pool: those about to start, and those waiting."""
    return tuple(s for s in run.stages.values() if s.planned.devices and _wants(run, s, now))


def standby(run: Run) -> Iterator[tuple[str, Start]]:
    """Yield what would start next if a stage that keeps a standby gang had to fall back."""
    for stage in run.stages.values():
        pools = stage.planned.pools[stage.planned.pools.index(stage.pool) + 1 :]
        placed = stage.state is StageState.RUNNING and stage.attempts[-1].placed is not None
        if placed and pools and stage.planned.stage.recovery.standby:
            yield stage.name, Start(stage.name, len(stage.attempts) + 1, pools[0])


def _wants(run: Run, stage: StageRun, now: float) -> bool:
    if stage.state is StageState.RUNNING:
        return stage.attempts[-1].state is AttemptState.WAITING
    if stage.state is not StageState.PENDING or run.state is not RunState.RUNNING:
        return False
    gate = stage.planned.stage.gate
    before = (run.stages[name].state for name in stage.planned.stage.upstream)
    return (
        all(state is StageState.SUCCEEDED for state in before)
        and (gate is None or bool(stage.gate_opened))
        and now >= stage.not_before
    )


def _wind_down(run: Run) -> Iterator[Command]:
    for stage in run.stages.values():
        if stage.state is StageState.RUNNING:
            yield Cancel(stage.name, stage.attempts[-1].number)
        elif not stage.done:
            yield Record(StageCancelled(stage.name))
    if all(stage.done for stage in run.stages.values()):
        yield Record(RunCancelled())


def _next(
    run: Run, stage: StageRun, now: float, outlook: Outlook, *, broke: bool
) -> Iterator[Command]:
    if stage.state is StageState.PENDING:
        yield from _begin(run, stage, now, outlook, broke=broke)
    elif stage.state is StageState.RUNNING:
        yield from _watch(run, stage, now, outlook, broke=broke)
    elif stage.state is StageState.DECIDING:
        spent = exhausted(run, stage, now, broke=broke)
        yield Record(follow_up(run, stage, now, spent=spent, outlook=outlook))


# --- a stage that waits -----------------------------------------------------------------------


def _begin(
    run: Run, stage: StageRun, now: float, outlook: Outlook, *, broke: bool
) -> Iterator[Command]:
    before = [run.stages[name] for name in stage.planned.stage.upstream]
    good = {StageState.SUCCEEDED, StageState.PAUSED}
    lost = next((s for s in before if s.done and s.state not in good), None)
    if lost:
        yield Record(StageSkipped(stage.name, f"stage {lost.name!r} {lost.state}"))
    elif all(s.state is StageState.SUCCEEDED for s in before):
        spent = exhausted(run, stage, now, broke=broke)
        if spent:
            yield Record(StagePaused(stage.name, f"{spent.kind}: {spent.evidence}"))
        elif stage.planned.stage.gate and not stage.gate_opened:
            yield from _wait_at_gate(stage, now, outlook)
        elif now >= stage.not_before:
            yield from _enter(run, stage, now, outlook)


def _wait_at_gate(stage: StageRun, now: float, outlook: Outlook) -> Iterator[Command]:
    gate = stage.planned.stage.gate
    assert gate is not None, "only a stage with a gate waits at one"  # noqa: S101
    waits_for = f"{gate.kind} {gate.target!r}" if gate.target else gate.kind
    if stage.gate_since is None:
        yield Record(GateReached(stage.name, f"waits for {waits_for}"))
    elif stage.name in outlook.opened:
        yield Record(GateOpened(stage.name, outlook.opened[stage.name]))
    elif gate.deadline is not None and now - stage.gate_since > gate.deadline:
        late = f"{waits_for} did not come within {gate.deadline:g} s"
        if gate.then == "stop":
            yield Record(StageFailed(stage.name, f"{FailureKind.DATA}: {late}"))
        elif gate.then == "go_on":
            yield Record(GateOpened(stage.name, f"{late}; goes on with what is there"))


def _enter(run: Run, stage: StageRun, now: float, outlook: Outlook) -> Iterator[Command]:
    """Start an attempt, unless its pool is being emptied or others go before.

    An endpoint begins where its model was compared with what was trained, and there alone.
    """
    move = misplaced(run, stage)
    if move is not None:
        yield Record(move)
        return
    stage = proven(run, stage)
    late = held_too_long(stage, now)
    if late:
        yield Record(_give_way(stage, late, outlook))
        return
    why = outlook.drained.get(stage.pool)
    other = next((pool for pool in stage.planned.pools if pool not in outlook.drained), None)
    held = outlook.behind.get(stage.name, "")
    if why is not None and other is not None:
        reason = f"pool {stage.pool!r} is being emptied ({why}): goes to {other!r}"
        yield Record(StageMoved(stage.name, other, reason))
        return
    if why is not None:
        held = f"every pool is being emptied ({why})"
    if not held:
        yield Start(stage.name, len(stage.attempts) + 1, stage.pool)
    elif held != stage.hold_reason:
        yield Record(StageHeld(stage.name, held))


def _give_way(stage: StageRun, late: str, outlook: Outlook) -> Event:
    """Return where a stage goes that has been held for too long."""
    pools = stage.planned.pools
    after = pools[pools.index(stage.pool) + 1 :]
    other = next((pool for pool in after if pool not in outlook.drained), None)
    if other is None:
        return StageFailed(stage.name, f"{FailureKind.PLACEMENT}: {late} (no pool left)")
    return StageMoved(stage.name, other, f"{late}: goes to {other!r}")


# --- a stage that runs ------------------------------------------------------------------------


def _watch(
    run: Run, stage: StageRun, now: float, outlook: Outlook, *, broke: bool
) -> Iterator[Command]:
    attempt = stage.attempts[-1]
    failure = _orphaned(run, attempt)
    if failure is None and attempt.state is AttemptState.WAITING:
        failure = waited_too_long(stage, attempt, now)
    spent = exhausted(run, stage, now, broke=broke)
    if failure is None and spent and out_of_grace(stage, attempt, now):
        failure = spent
    if failure:
        yield Expire(stage.name, attempt.number, failure)
    elif spent and not attempt.leaving:
        yield Leave(stage.name, attempt.number, spent.evidence)
    elif not attempt.leaving:
        yield from _asked_to_leave(stage, attempt, outlook)


def _asked_to_leave(stage: StageRun, attempt: Attempt, outlook: Outlook) -> Iterator[Leave]:
    """Yield why an attempt is to leave, if it is: its place is emptied, or another is better."""
    drained = outlook.drained_nodes.get(attempt.pool, {})
    nodes = (f"node {node!r}: {drained[node]}" for node in attempt.nodes if node in drained)
    reason = outlook.drained.get(attempt.pool) or next(nodes, "")
    if attempt.pool in outlook.drained or reason:
        yield Leave(stage.name, attempt.number, reason)
    elif (place := outlook.better.get(stage.name)) and place.attempt == attempt.number:
        yield Leave(stage.name, attempt.number, place.reason, goes_to=place.pool)


def _orphaned(run: Run, attempt: Attempt) -> Failure | None:
    """Return the failure of an attempt whose controller was lost: nobody hears it any more."""
    if attempt.epoch == run.epoch:
        return None
    evidence = f"the controller of epoch {attempt.epoch} that had started it is gone"
    return Failure(kind=FailureKind.CONTROLLER_LOST, evidence=evidence, pool=attempt.pool)


def _verdict(run: Run) -> Event:
    """Return how a run ends in which nothing goes on by itself any more."""
    stages = run.stages.values()
    failed = next((stage for stage in stages if stage.state is StageState.FAILED), None)
    if failed:
        where = f"on pool {failed.pool!r}"
        return RunFailed(f"stage {failed.name!r} failed {where}: {failed.reason}")
    paused = next((stage for stage in stages if stage.state is StageState.PAUSED), None)
    if paused:
        return RunPaused(f"stage {paused.name!r} waits for you: {paused.reason}")
    return RunSucceeded()
