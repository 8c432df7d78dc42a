"""What the attempts of a stage say: which count, which were in vain, and which nodes to avoid."""

from __future__ import annotations

from orchestrator.core.failures.kinds import (
    DISK_FULL,
    OF_A_BROKEN_CHIP,
    OF_A_NODE,
    OTHER_VERSIONS,
    UNCOUNTED,
    FailureKind,
)
from orchestrator.core.runs.run import Attempt, StageRun

# Chips and versions stay what they are; a node may be back, and a full memory empty again.
_STAYING: frozenset[str] = OF_A_BROKEN_CHIP | {FailureKind.UNQUALIFIED, OTHER_VERSIONS}
_OF_A_NODE: frozenset[str] = OF_A_NODE | {DISK_FULL}


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


def _counts(attempt: Attempt) -> bool:
    return attempt.failure is None or attempt.failure.kind not in UNCOUNTED
