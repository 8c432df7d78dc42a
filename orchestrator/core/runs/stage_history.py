"""What the attempts of a stage say: which count, which were in vain, and where not to go again."""

from __future__ import annotations

from itertools import pairwise

from orchestrator.core.failures.kinds import (
    DISK_FULL,
    OF_A_BROKEN_CHIP,
    OF_A_NODE,
    OTHER_VERSIONS,
    TRANSIENT,
    UNCOUNTED,
    FailureKind,
)
from orchestrator.core.runs.run import Attempt, StageRun

# Chips and versions stay what they are; a node may be back, and a full memory empty again.
_STAYING: frozenset[str] = OF_A_BROKEN_CHIP | {FailureKind.UNQUALIFIED, OTHER_VERSIONS}
_OF_A_NODE: frozenset[str] = OF_A_NODE | {DISK_FULL}
# After these a pool can be as good as it was: other nodes, or another hour.
_PASSING: frozenset[FailureKind] = (TRANSIENT | OF_A_NODE) - {FailureKind.UNKNOWN}


def counted(stage: StageRun) -> int:
    """Return how many attempts count against the limit: those that no outside cause ended."""
    return sum(map(_counts, stage.attempts[stage.forgiven :]))


def in_vain(stage: StageRun, pool: str | None = None) -> tuple[Attempt, ...]:
    """Return the failed attempts that count since the last new checkpoint, the latest first.

    The attempt that saved that checkpoint, and failed after it, is the last of them. With `pool`
    only those in a row on that pool.
    """
    failed: list[Attempt] = []
    for index in reversed(range(stage.forgiven, len(stage.attempts))):
        attempt = stage.attempts[index]
        if pool not in (None, attempt.pool):
            break
        if _counts(attempt):
            failed.append(attempt)
        if stage.advanced(index):
            break
    return tuple(failed)


def avoided(stage: StageRun, pool: str, *, suspects: bool = False) -> tuple[str, ...]:
    """Return the nodes of `pool` that attempts failed by, each once, the latest first.

    With a broken chip, or with other versions, a node is avoided for good, after a loss of its own
    by the next attempt; `suspects` are all on which the last attempts in vain have failed.
    """
    latest = in_vain(stage, pool)
    chips = [a for a in reversed(stage.attempts[stage.forgiven :]) if a.pool == pool]
    bad = [a for a in chips if a.failure and {a.failure.kind, a.failure.sign} & _STAYING]
    lost = [a for a in latest[:1] if a.failure and {a.failure.kind, a.failure.sign} & _OF_A_NODE]
    nodes = (a.failure.node for a in (*lost, *(latest if suspects else ()), *bad) if a.failure)
    return tuple(dict.fromkeys(node for node in nodes if node))


def preferred(stage: StageRun) -> tuple[str, ...]:
    """Return the pools before the one it trains on to which it may go back, the first ones first.

    Not where it failed by something that comes again there, or that nobody knows.
    """
    latest = stage.attempts[-1:]
    if not latest or not latest[0].active or latest[0].placed is None or latest[0].leaving:
        return ()
    failures = [(a.pool, a.failure.kind) for a in stage.attempts[stage.forgiven :] if a.failure]
    spoiled = {pool for pool, kind in failures if kind not in _PASSING}
    pools = stage.planned.pools
    before = pools[: pools.index(stage.pool)] if stage.planned.stage.endpoint is None else ()
    return tuple(pool for pool in before if pool not in spoiled)


def returns(stage: StageRun) -> int:
    """Return how often the stage has gone back to a pool that comes before."""
    order = [stage.planned.pools.index(attempt.pool) for attempt in stage.attempts]
    return sum(later < earlier for earlier, later in pairwise(order))


def _counts(attempt: Attempt) -> bool:
    return attempt.failure is None or attempt.failure.kind not in UNCOUNTED
