"""What follows a failed attempt: again here, elsewhere, otherwise, or not at all.

The kind of the failure chooses an action; where that can't be done (no pool left, no node left, no
try left on this pool) the next best is. Every answer carries its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import takewhile
from types import MappingProxyType

from orchestrator.core.checks import places
from orchestrator.core.failure import (
    DEFAULT_ACTIONS,
    OF_A_NODE,
    TRANSIENT,
    UNCOUNTED,
    Action,
    Failure,
    FailureKind,
)
from orchestrator.core.parity import guards
from orchestrator.core.policy import Adjust
from orchestrator.core.run import Run, StageRun
from orchestrator.core.spec import Stage
from orchestrator.core.state import RetryScheduled, StageFailed, StageMoved

DOUBLINGS = 10
_HERE = frozenset({Action.RETRY, Action.OTHER_NODES, Action.LOWER_BATCH, Action.ROLL_BACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a controller knows of the world beside its run.

    Attributes:
        drained: Pools that are being emptied, with the reason.
        opened: Gates that are open, by stage, with what opened them.
        behind: Stages that others go before, with who and why.
    """

    drained: Mapping[str, str] = field(default_factory=dict)
    opened: Mapping[str, str] = field(default_factory=dict)
    behind: Mapping[str, str] = field(default_factory=dict)


QUIET = Outlook()


def action_for(stage: Stage, kind: FailureKind) -> Action:
    """Return what a failure of `kind` leads to in this stage."""
    return stage.on_failure.get(kind, DEFAULT_ACTIONS[kind])


def proven(run: Run, stage: StageRun) -> StageRun:
    """Return `stage` with the pools alone on which all that guards its endpoint has passed.

    The pool that it is bound to at present stays among them.
    """
    stages = (one.planned.stage for one in run.stages.values())
    passed = [run.stages[one.name].pool for one in guards(stages, stage.planned.stage)]
    pools = stage.planned.pools
    left = tuple(one for one in pools if one == stage.pool or all(one == p for p in passed))
    return replace(stage, planned=replace(stage.planned, pools=left)) if left != pools else stage


def misplaced(run: Run, stage: StageRun) -> StageMoved | StageFailed | None:
    """Return what follows where an endpoint's guards passed on another pool than its own."""
    stages = (one.planned.stage for one in run.stages.values())
    passed = {run.stages[one.name].pool for one in guards(stages, stage.planned.stage)}
    if not passed - {stage.pool}:
        return None
    where = ", ".join(sorted(passed))
    if len(passed) == 1 and where in stage.planned.pools:
        return StageMoved(stage.name, where, f"its model was compared on {where}: goes there")
    reason = f"{FailureKind.PARITY}: its model was compared on {where}, which can't serve it"
    return StageFailed(stage.name, reason)


def avoided(stage: StageRun) -> tuple[str, ...]:
    """Return the nodes of the stage's pool that its attempts failed by; each once."""
    failures = (a.failure for a in stage.attempts if a.pool == stage.pool)
    found = (f.node for f in failures if f and f.node and f.kind in OF_A_NODE)
    return tuple(dict.fromkeys(found))


def follow_up(
    run: Run, stage: StageRun, now: float, *, spent: Failure | None, outlook: Outlook = QUIET
) -> RetryScheduled | StageFailed:
    """Return what follows the failure of the latest attempt of `stage` at `now` (seconds, epoch).

    `spent` says which limit is exhausted, if one is.
    """
    stage = proven(run, stage)
    failure = stage.attempts[-1].failure
    assert failure is not None, "a stage that is deciding has a failed attempt"  # noqa: S101
    action = _possible(run, stage, failure.kind, outlook)
    ended = _end_of_tries(run, stage, action, spent, outlook)
    if ended is not None:
        return StageFailed(stage.name, f"{failure.kind}: {failure.evidence}{ended}")
    return _ANSWERS[action](_Case(stage, now, str(failure.kind), outlook))


def _possible(run: Run, stage: StageRun, kind: FailureKind, outlook: Outlook) -> Action:
    """Return the action of `kind`, or what stands in for it where it can't be done."""
    action = action_for(stage.planned.stage, kind)
    if action is Action.ESCALATE:
        action = Action.RETRY
    if action is Action.PAUSE:
        action = Action.STOP
    if kind is FailureKind.DRAINED and action is Action.FALL_BACK:
        return action if _targets(stage, outlook) else Action.RETRY  # waits until it is refilled
    if action is Action.FALL_BACK and kind in TRANSIENT and not _targets(stage, outlook):
        return Action.RETRY
    if action not in _HERE or kind is FailureKind.CONTROLLER_LOST:
        return action
    no_node = action is Action.OTHER_NODES and not _room_elsewhere(run, stage)
    used_up = _tries_here(stage) >= stage.planned.stage.limits.tries
    if (no_node or used_up or stage.pool in outlook.drained) and _targets(stage, outlook):
        return Action.FALL_BACK
    return Action.RETRY if no_node else action


def _room_elsewhere(run: Run, stage: StageRun) -> bool:
    """Whether the pool holds the stage's fewest workers without the nodes that failed."""
    pool, spec = run.plan.pools[stage.pool], stage.planned.stage.on(stage.pool)
    left = replace(pool, nodes=pool.nodes - len(avoided(stage)))
    return places(spec, left) >= spec.fewest


def _end_of_tries(
    run: Run, stage: StageRun, action: Action, spent: Failure | None, outlook: Outlook
) -> str | None:
    """Return why no further attempt follows, as the end of a sentence, or `None`."""
    if action is Action.STOP:
        return ""
    count = counted(stage)
    if count >= stage.planned.stage.limits.attempts:
        return f" (attempt {count}, the last)"
    limit = run.plan.bounds.attempts
    if limit is not None and sum(map(counted, run.stages.values())) >= limit:
        return f" (the run has had its {limit} attempts)"
    if action is Action.FALL_BACK and not _targets(stage, outlook):
        return " (no pool left to fall back to)"
    return f" ({spent.evidence})" if spent else None


def counted(stage: StageRun) -> int:
    """Return how many attempts count against the limit: those that no outside cause ended."""
    failures = (attempt.failure for attempt in stage.attempts)
    return sum(failure is None or failure.kind not in UNCOUNTED for failure in failures)


# --- answers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Case:
    """A failed stage, when it is decided (seconds, epoch), what happened, and the outlook."""

    stage: StageRun
    now: float
    what: str
    outlook: Outlook


def _again(case: _Case) -> RetryScheduled:
    stage = case.stage
    wait = 0.0 if _kind(stage) in UNCOUNTED else _backoff(stage)
    reason = f"{case.what}: again on {stage.pool} {f'in {wait:g} s' if wait else 'at once'}"
    return _scheduled(stage, case.now + wait, reason, Action.RETRY)


def _elsewhere(case: _Case) -> RetryScheduled:
    stage, nodes = case.stage, ", ".join(avoided(case.stage))
    reason = f"{case.what}: again on other nodes of {stage.pool} than {nodes}"
    return _scheduled(stage, case.now, reason, Action.OTHER_NODES)


def _fall_back(case: _Case) -> RetryScheduled:
    stage = case.stage
    pool = _targets(stage, case.outlook)[0]
    reason = f"{case.what}: falls back from {stage.pool} to {pool}"
    made = _scheduled(stage, case.now, reason, Action.FALL_BACK)
    if _kind(stage) is FailureKind.NUMERICAL_DIVERGENCE:  # its checkpoint is suspect there too
        made = replace(made, adjust=_roll_back(case).adjust)
    return replace(made, pool=pool)


def _lower_batch(case: _Case) -> RetryScheduled:
    stage = case.stage
    times = stage.adjust.accumulate * stage.planned.stage.recovery.accumulate
    reason = f"{case.what}: again on {stage.pool} with micro-batches of 1/{times} of the size"
    made = _scheduled(stage, case.now, reason, Action.LOWER_BATCH)
    return replace(made, adjust=replace(made.adjust, accumulate=times))


def _roll_back(case: _Case) -> RetryScheduled:
    stage, recovery = case.stage, case.stage.planned.stage.recovery
    rate, steps = stage.adjust.rate * recovery.rate, stage.checkpoints
    before = steps[-min(recovery.checkpoints, len(steps))] if steps else None
    where = "the beginning" if before is None else f"a checkpoint before step {before}"
    reason = f"{case.what}: again on {stage.pool} from {where}, learning rate x {rate:g}"
    made = _scheduled(stage, case.now, reason, Action.ROLL_BACK)
    return replace(made, adjust=replace(made.adjust, rate=rate, before=before))


_ANSWERS: Mapping[Action, Callable[[_Case], RetryScheduled]] = MappingProxyType(
    {
        Action.RETRY: _again,
        Action.OTHER_NODES: _elsewhere,
        Action.FALL_BACK: _fall_back,
        Action.LOWER_BATCH: _lower_batch,
        Action.ROLL_BACK: _roll_back,
    }
)


def _scheduled(stage: StageRun, at: float, reason: str, action: Action) -> RetryScheduled:
    """Return that the stage goes on here; a roll-back is the matter of one attempt alone."""
    adjust: Adjust = replace(stage.adjust, before=None)
    return RetryScheduled(stage.name, stage.pool, at, reason, action, adjust)


def _kind(stage: StageRun) -> FailureKind | None:
    failure = stage.attempts[-1].failure
    return failure.kind if failure else None


def _tries_here(stage: StageRun) -> int:
    """Return how many attempts in a row, up to the latest, this pool has had; those that count."""
    tries = 0
    for attempt in reversed(stage.attempts):
        if attempt.pool != stage.pool:
            break
        tries += attempt.failure is None or attempt.failure.kind not in UNCOUNTED
    return tries


def _backoff(stage: StageRun) -> float:
    """Return the wait, which doubles while attempts on this pool bring the stage no further."""
    here = takewhile(lambda attempt: attempt.pool == stage.pool, reversed(stage.attempts))
    vain = sum(1 for _ in takewhile(lambda attempt: not attempt.saved, here))
    return stage.planned.stage.limits.backoff * 2.0 ** min(max(vain - 1, 0), DOUBLINGS)


def _targets(stage: StageRun, outlook: Outlook) -> tuple[str, ...]:
    """Return the pools that may take over, in order.

    After a failure those are the pools after the present one: the ones before it failed. From an
    emptied pool the stage may go to any other, but not to one that is being emptied too.
    """
    pools = stage.planned.pools
    here = pools.index(stage.pool)
    after = pools[here + 1 :]
    usable = tuple(pool for pool in after if pool not in outlook.drained)
    if _kind(stage) is FailureKind.DRAINED:
        return usable + tuple(pool for pool in pools[:here] if pool not in outlook.drained)
    return usable or after
