"""What follows a failed attempt: again here, elsewhere, otherwise, or not at all.

The kind of the failure chooses an action; where that can't be done (no pool left, no node left, no
try left on this pool) the next best is. What nobody knows is tried here, then on other nodes, then
on the next pool; then the stage is paused. Only what is not in doubt fails it. Every answer
carries its reason, and can be placed on the fleet that it was made for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from orchestrator.core.failures.kinds import (
    DISK_FULL,
    DOES_NOT_FIT,
    OTHER_VERSIONS,
    TRANSIENT,
    UNCOUNTED,
    Action,
    Failure,
    FailureKind,
    default_action,
)
from orchestrator.core.runs.proven_pools import proven
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.runs.stage_history import avoided, counted, in_vain
from orchestrator.core.runs.states import RetryScheduled, StageFailed, StagePaused
from orchestrator.core.spec.capacity import places
from orchestrator.core.spec.policy import AS_PLANNED
from orchestrator.core.spec.stages import Stage

DOUBLINGS = 10
_HERE = frozenset({Action.RETRY, Action.OTHER_NODES, Action.LOWER_BATCH, Action.ROLL_BACK})
# Where these are the last word, somebody shall look before the stage is given up.
_IN_DOUBT = frozenset({FailureKind.UNKNOWN, FailureKind.STORAGE, FailureKind.WORKER_LOST})
FIRST_STEP = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BetterPlace:
    """Where attempt number `attempt` of a stage would rather be, and why.

    That is its own `pool`, which has room for all of its gang, or one that its stage prefers.
    """

    attempt: int
    pool: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a controller knows of the world beside its run.

    Attributes:
        drained: Pools that are being emptied, with the reason.
        opened: Gates that are open, by stage, with what opened them.
        behind: Stages that others go before, with who and why.
        quarantined: Nodes that other work has found broken, by pool.
        drained_nodes: Nodes that are being emptied, by pool, with the reason.
        better: Better places for attempts that run, by stage.
    """

    drained: Mapping[str, str] = field(default_factory=dict)
    opened: Mapping[str, str] = field(default_factory=dict)
    behind: Mapping[str, str] = field(default_factory=dict)
    quarantined: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    drained_nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    better: Mapping[str, BetterPlace] = field(default_factory=dict)


QUIET = Outlook()


def action_for(stage: Stage, failure: Failure) -> Action:
    """Return what `failure` leads to in this stage."""
    return stage.on_failure.get(failure.kind, default_action(failure))


def follow_up(
    run: Run, stage: StageRun, now: float, *, spent: Failure | None, outlook: Outlook = QUIET
) -> RetryScheduled | StageFailed | StagePaused:
    """Return what follows the failure of the latest attempt of `stage` at `now` (seconds, epoch).

    `spent` says which limit is exhausted, if one is.
    """
    stage = proven(run, stage)
    failure = stage.attempts[-1].failure
    assert failure is not None, "a stage that is deciding has a failed attempt"  # noqa: S101
    case = _FailedStage(run, stage, now, failure, outlook)
    action = _possible(case)
    reason = f"{failure.kind}: {failure.evidence}"
    if action is Action.STOP:
        return StageFailed(stage.name, reason)
    if action is Action.PAUSE:
        return StagePaused(stage.name, reason)
    if spent:
        return StagePaused(stage.name, f"{spent.kind}: {spent.evidence}")
    ended = _end_of_tries(case, action)
    if ended is None:
        return _ANSWERS[action](case)
    doubtful = not failure.certain or failure.kind in _IN_DOUBT
    return (StagePaused if doubtful else StageFailed)(stage.name, f"{reason}{ended}")


@dataclass(frozen=True, slots=True)
class _FailedStage:
    """A failed stage of a run, when it is decided (seconds, epoch), and the outlook."""

    run: Run
    stage: StageRun
    now: float
    failure: Failure
    outlook: Outlook

    @property
    def targets(self) -> tuple[str, ...]:
        """Pools that may take over, in order."""
        return _targets(self.stage, self.outlook)

    @property
    def better(self) -> str:
        """The pool that the attempt has left for; its own where that is emptied now, or none."""
        pool = self.stage.attempts[-1].goes_to
        if not pool or self.failure.kind is not FailureKind.DRAINED:
            return ""
        used = (name for name in (pool, self.stage.pool) if name not in self.outlook.drained)
        return next(used, "")


def _possible(case: _FailedStage) -> Action:
    """Return the action of the kind, or what stands in for it where it can't be done."""
    stage, kind = case.stage, case.failure.kind
    action = _wanted(case)
    if kind is FailureKind.DRAINED and (case.better or action is Action.FALL_BACK):
        return _after_leaving(case)
    if action is Action.FALL_BACK and kind in TRANSIENT and not case.targets:
        return Action.RETRY
    if action not in _HERE or kind is FailureKind.CONTROLLER_LOST:
        return action
    no_node = action is Action.OTHER_NODES and not _elsewhere_fits(case)
    # another maker's pool has the same storage, and disks of its own
    everywhere = kind is FailureKind.STORAGE and case.failure.sign != DISK_FULL
    used_up = not everywhere and (
        len(in_vain(stage, stage.pool)) >= stage.planned.stage.limits.tries
    )
    escalates = action_for(stage.planned.stage, case.failure) is Action.ESCALATE
    if (no_node or (used_up and not escalates) or stage.pool in case.outlook.drained) and (
        case.targets
    ):
        return Action.FALL_BACK
    return Action.RETRY if no_node else action


def _after_leaving(case: _FailedStage) -> Action:
    """Return where a stage goes on that has left: at its better place, or on another pool."""
    if case.better:
        return Action.RETRY if case.better == case.stage.pool else Action.FALL_BACK
    moves = case.targets and not _only_nodes_are_drained(case)
    return Action.FALL_BACK if moves else Action.RETRY  # waits until it is refilled


def _only_nodes_are_drained(case: _FailedStage) -> bool:
    """Whether nodes of the pool are being emptied, not all, and the others hold the stage."""
    pool = case.stage.pool
    nodes = tuple(case.outlook.drained_nodes.get(pool, ()))
    return bool(nodes) and pool not in case.outlook.drained and _fits(case, nodes, pool)


def _wanted(case: _FailedStage) -> Action:
    """Return the action that the kind asks for, by what has been tried and found so far."""
    stage, kind = case.stage.planned.stage, case.failure.kind
    action = action_for(stage, case.failure)
    if action is Action.ESCALATE:
        return _escalated(case)
    revise = None if kind in stage.on_failure else _BY_HISTORY.get(kind)
    return revise(case, action) if revise else action


def _escalated(case: _FailedStage) -> Action:
    """Return the next of: again here, on other nodes, on the next pool, and a pause."""
    tries = len(in_vain(case.stage, case.stage.pool))
    if tries <= 1:
        return Action.RETRY
    if tries == 2 and _elsewhere_fits(case):  # noqa: PLR2004 - the second of the four
        return Action.OTHER_NODES
    return Action.FALL_BACK if case.targets else Action.PAUSE


def _of_user_code(case: _FailedStage, action: Action) -> Action:
    """Stop for what is certain: told so, at once on the first step, or again there elsewhere.

    So it is tried elsewhere as soon as can be; where it does not come again nobody knows.
    """
    tries = len(in_vain(case.stage, case.stage.pool))
    if case.failure.certain or _at_once(case.stage) or _again_elsewhere(case):
        return action
    if tries <= 1:
        return Action.OTHER_NODES if _elsewhere_fits(case) else Action.RETRY
    return Action.FALL_BACK if case.targets else Action.PAUSE


def _of_set_up(case: _FailedStage, action: Action) -> Action:
    """Stop at once; later on, and with a node's versions, it may be right elsewhere."""
    first = len(case.stage.attempts) <= case.stage.forgiven + 1
    elsewhere = _elsewhere_fits(case)
    if case.failure.sign == OTHER_VERSIONS:
        first, elsewhere = False, elsewhere and bool(case.failure.node)
    if first or not (elsewhere or case.targets):
        return action
    return Action.OTHER_NODES if elsewhere else Action.FALL_BACK


def _of_a_hang(case: _FailedStage, action: Action) -> Action:
    """Try the first here once more."""
    first = len(in_vain(case.stage, case.stage.pool)) <= 1
    return Action.RETRY if first else action


def _of_memory(case: _FailedStage, action: Action) -> Action:
    """Ask for smaller micro-batches only a job that can make them; elsewhere, if none fits."""
    if case.failure.sign == DOES_NOT_FIT:
        return Action.FALL_BACK
    return action if case.failure.adjusts else Action.RETRY


def _of_storage(case: _FailedStage, action: Action) -> Action:
    """Try a full disk on other nodes, whose disks may have room."""
    full = case.failure.sign == DISK_FULL and bool(case.failure.node)
    return Action.OTHER_NODES if full and _elsewhere_fits(case) else action


_BY_HISTORY: Mapping[FailureKind, Callable[[_FailedStage, Action], Action]] = MappingProxyType(
    {
        FailureKind.USER_CODE: _of_user_code,
        FailureKind.SET_UP: _of_set_up,
        FailureKind.HANG: _of_a_hang,
        FailureKind.OUT_OF_MEMORY: _of_memory,
        FailureKind.STORAGE: _of_storage,
    }
)


def _at_once(stage: StageRun) -> bool:
    """Whether no attempt has come past its first step."""
    failures = [a.failure for a in stage.attempts[stage.forgiven :]]
    saved = any(a.saved or a.resumed is not None for a in stage.attempts[stage.forgiven :])
    return not saved and all(f is None or (f.step or 0) <= FIRST_STEP for f in failures)


def _again_elsewhere(case: _FailedStage) -> bool:
    """Whether the same came at the same step in two places: a broken chip errs in one."""
    latest = (case.failure.kind, case.failure.step, case.failure.evidence)
    places = {
        (attempt.pool, failure.node)
        for attempt in in_vain(case.stage)
        if (failure := attempt.failure)
        and (failure.kind, failure.step, failure.evidence) == latest
    }
    return len(places) > 1


def _fits(case: _FailedStage, avoid: tuple[str, ...], pool: str) -> bool:
    """Whether `pool` holds the stage's fewest workers without the nodes of `avoid`."""
    fleet_pool, spec = case.run.plan.pools[pool], case.stage.planned.stage.on_pool(pool)
    left = replace(fleet_pool, nodes=fleet_pool.nodes - len(avoid))
    return places(spec, left) >= spec.fewest


def _elsewhere_fits(case: _FailedStage) -> bool:
    """Whether nodes of the pool hold the stage that it has not failed on, nor are emptied."""
    pool = case.stage.pool
    bad, emptied = avoided(case.stage, pool, suspects=True), case.outlook.drained_nodes
    return _fits(case, tuple(dict.fromkeys((*bad, *emptied.get(pool, ())))), pool)


def _end_of_tries(case: _FailedStage, action: Action) -> str | None:
    """Return why no further attempt follows, as the end of a sentence, or `None`."""
    stage, limits = case.stage, case.stage.planned.stage.limits
    count, vain = counted(stage), len(in_vain(stage))
    if vain >= limits.attempts:
        return f" (attempt {count}, the last{'' if count == vain else ' of those in vain'})"
    if limits.total is not None and count >= limits.total:
        return f" (the stage has had its {limits.total} attempts)"
    most = case.run.plan.bounds.attempts
    if most is not None and sum(map(counted, case.run.stages.values())) >= most:
        return f" (the run has had its {most} attempts)"
    if action is Action.FALL_BACK and not (case.better or case.targets):
        return " (no pool left to fall back to)"
    return None


# --- answers ----------------------------------------------------------------------------------


def _again(case: _FailedStage) -> RetryScheduled:
    stage = case.stage
    wait = 0.0 if case.failure.kind in UNCOUNTED else _backoff(stage)
    here = f"again on {stage.pool} {f'in {wait:g} s' if wait else 'at once'}"
    return replace(_scheduled(case, here, Action.RETRY), not_before=case.now + wait)


def _elsewhere(case: _FailedStage) -> RetryScheduled:
    stage = case.stage
    avoid = avoided(stage, stage.pool, suspects=True)
    if not avoid:  # nobody knows which node it was
        return _again(case)
    what = f"again on other nodes of {stage.pool} than {', '.join(avoid)}"
    return replace(_scheduled(case, what, Action.OTHER_NODES), avoid=avoid)


def _fall_back(case: _FailedStage) -> RetryScheduled:
    stage, pool = case.stage, case.better or case.targets[0]
    how = "goes back" if case.better else "falls back"
    retry = _scheduled(case, f"{how} from {stage.pool} to {pool}", Action.FALL_BACK, pool)
    # its checkpoint is suspect there too
    if case.failure.kind is FailureKind.NUMERICAL_DIVERGENCE:
        retry = replace(retry, adjust=_roll_back(case).adjust)
    return retry


def _lower_batch(case: _FailedStage) -> RetryScheduled:
    stage = case.stage
    times = stage.adjust.accumulate * stage.planned.stage.recovery.accumulate
    smaller = f"again on {stage.pool} with micro-batches of 1/{times} of the size"
    retry = _scheduled(case, smaller, Action.LOWER_BATCH)
    return replace(retry, adjust=replace(retry.adjust, accumulate=times))


def _roll_back(case: _FailedStage) -> RetryScheduled:
    """Go back to a checkpoint that is still there, or to the beginning, and say which."""
    stage, recovery = case.stage, case.stage.planned.stage.recovery
    rate, kept = stage.adjust.rate * recovery.rate, stage.kept
    before = kept[-min(recovery.checkpoints, len(kept))] if kept else None
    left = [step for step in kept if before is not None and step < before]
    where = f"the checkpoint of step {left[-1]}" if left else "the beginning"
    reason = f"again on {stage.pool} from {where}, learning rate x {rate:g}"
    retry = _scheduled(case, reason, Action.ROLL_BACK)
    return replace(retry, adjust=replace(retry.adjust, rate=rate, before=before))


_ANSWERS: Mapping[Action, Callable[[_FailedStage], RetryScheduled]] = MappingProxyType(
    {
        Action.RETRY: _again,
        Action.OTHER_NODES: _elsewhere,
        Action.FALL_BACK: _fall_back,
        Action.LOWER_BATCH: _lower_batch,
        Action.ROLL_BACK: _roll_back,
    }
)


def _scheduled(case: _FailedStage, what: str, action: Action, pool: str = "") -> RetryScheduled:
    """Return that the stage goes on at once on `pool`, or where it is, but on no broken node.

    A roll-back is the matter of one attempt alone, and the size of micro-batches that of a pool.
    """
    stage, where = case.stage, pool or case.stage.pool
    accumulate = stage.adjust.accumulate if where == stage.pool else AS_PLANNED.accumulate
    avoid = avoided(stage, where)
    while avoid and not _fits(case, avoid, where):
        avoid = avoid[:-1]
    return RetryScheduled(
        stage=stage.name,
        pool=where,
        not_before=case.now,
        reason=f"{case.failure.kind}: {what}",
        action=action,
        adjust=replace(
            stage.adjust, accumulate=accumulate, before=0 if stage.begins_anew else None
        ),
        avoid=avoid,
    )


def _backoff(stage: StageRun) -> float:
    """Return the wait, which doubles while attempts on this pool bring the stage no further."""
    vain = sum(not attempt.saved for attempt in in_vain(stage, stage.pool))
    return stage.planned.stage.limits.backoff * 2.0 ** min(max(vain - 1, 0), DOUBLINGS)


def _targets(stage: StageRun, outlook: Outlook) -> tuple[str, ...]:
    """Return the pools that may take over, in order.

    After a failure those are the pools after the present one: the ones before it failed, and get
    another turn only where the stage goes round. From an emptied pool the stage may go to any
    other, but not to one that is being emptied too.
    """
    pools = stage.planned.pools
    here = pools.index(stage.pool)
    after, before = pools[here + 1 :], pools[:here]
    if stage.planned.stage.recovery.round_robin:
        after, before = after + before, ()
    usable = tuple(pool for pool in after if pool not in outlook.drained)
    failure = stage.attempts[-1].failure
    if failure and failure.kind is FailureKind.DRAINED:
        return usable + tuple(pool for pool in before if pool not in outlook.drained)
    return usable or after
