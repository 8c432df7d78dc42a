"""What a run of checks says of the pool that it ran on, beside what its checks found."""

from __future__ import annotations

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.run import Run, StageRun
from orchestrator.core.runs.states import RunState
from orchestrator.core.spec.hardware import Role
from orchestrator.core.trust.qualification import EARNED, Finding, Status

# What ends an attempt for these reasons says nothing of the pool.
NO_VERDICT = frozenset(
    {
        FailureKind.BUDGET,
        FailureKind.CANCELLED,
        FailureKind.CONTROLLER_LOST,
        FailureKind.DRAINED,
        FailureKind.TIME,
    }
)
# What shows between chips is no matter of a replica, which has its own.
OF_A_GANG = frozenset({FailureKind.INTERCONNECT})
LONGEST_NOTE = 240


def failures_of(run: Run) -> tuple[Finding, ...] | None:
    """Return how attempts of a qualification failed; `None` where that says nothing of the pool.

    An attempt that broke is a finding too: a link that is lost, a worker that hangs.
    """
    failed = [
        (stage, attempt.failure)
        for stage in run.stages.values()
        for attempt in stage.attempts
        if attempt.failure
    ]
    if not run.done or run.state is RunState.CANCELLED:
        return None
    if any(_says_nothing(stage, failure) for stage, failure in failed):
        return None
    return tuple(_finding(stage.name, failure) for stage, failure in failed)


def _says_nothing(stage: StageRun, failure: Failure) -> bool:
    """Whether a failure is not of the pool: somebody else's work was on it, for one."""
    waited = failure.kind is FailureKind.PLACEMENT
    bounded = stage.planned.stage.limits.pending is not None
    return failure.kind in NO_VERDICT or (waited and bounded)


def _finding(stage: str, failure: Failure) -> Finding:
    places = (("rank", failure.rank), ("step", failure.step))
    where = ", ".join(f"{name} {number}" for name, number in places if number is not None)
    evidence = " ".join(failure.evidence.split())
    evidence = evidence if len(evidence) <= LONGEST_NOTE else f"{evidence[:LONGEST_NOTE]} ..."
    return Finding(
        check=stage,
        subject=str(failure.kind),
        status=Status.FAILED,
        note=f"{evidence} ({where})" if where else evidence,
        roles=(Role.TRAIN,) if failure.kind in OF_A_GANG else EARNED,
    )
