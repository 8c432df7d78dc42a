"""What a run knows of its checkpoints, and of the steps that it lost."""

from __future__ import annotations

from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.fold import NEWEST_SAVED, apply
from orchestrator.core.runs.run import StageRun
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptResumed,
    AttemptSaved,
    AttemptStarted,
    Event,
    RetryScheduled,
)
from orchestrator.core.spec.policy import Recovery
from tests.build import plan, stage
from tests.core.histories import after

K = FailureKind


def placed(number: int, where: str = "a") -> tuple[Event, ...]:
    return (AttemptStarted("s", number, where), AttemptPlaced("s", number, ("n1",)))


def test_a_resume_cuts_off_the_later_checkpoints_and_counts_what_was_lost() -> None:
    lost = Failure(kind=K.HANG, evidence="x", step=37)
    run = after(
        plan(stage("s"), pools=("a", "b")),
        *(*placed(1), AttemptSaved("s", 1, 10), AttemptSaved("s", 1, 20)),
        *(AttemptSaved("s", 1, 30), AttemptFailed("s", 1, lost)),
        *(RetryScheduled("s", "b", 0.0, "moved"), *placed(2, "b")),
    )
    assert run.lost_steps == 0, "where it resumes is not known yet"
    run = apply(run, AttemptResumed("s", 2, 20), 0.0)
    assert run.stages["s"].checkpoints == (10, 20)
    assert (run.lost_steps, run.failovers) == (17, 1)
    run = apply(run, AttemptSaved("s", 2, 30), 0.0)
    assert run.stages["s"].checkpoints == (10, 20, 30)


def test_an_attempt_that_its_controller_never_began_loses_nothing() -> None:
    lost = Failure(kind=K.HANG, evidence="x", step=12)
    gone = Failure(kind=K.CONTROLLER_LOST, evidence="gone")
    again = RetryScheduled("s", "a", 0.0, "again")
    run = after(
        plan(stage("s")),
        *(*placed(1), AttemptSaved("s", 1, 10), AttemptFailed("s", 1, lost), again),
        *(*placed(2), AttemptFailed("s", 2, gone), again),
        *placed(3),
    )
    assert run.lost_steps == 0
    assert apply(run, AttemptResumed("s", 3, 10), 0.0).lost_steps == 2


def test_an_attempt_that_begins_anew_loses_all_steps_and_checkpoints() -> None:
    lost = Failure(kind=K.HANG, evidence="x", step=37)
    run = after(
        plan(stage("s"), pools=("a", "b")),
        *(*placed(1), AttemptSaved("s", 1, 30), AttemptFailed("s", 1, lost)),
        *(RetryScheduled("s", "b", 0.0, "moved"), *placed(2, "b"), AttemptSaved("s", 2, 5)),
    )
    assert (run.stages["s"].checkpoints, run.lost_steps) == ((5,), 37)


def test_of_many_checkpoints_the_newest_are_known_and_all_that_are_kept() -> None:
    def run_of(count: int, keep: int) -> StageRun:
        saved = (AttemptSaved("s", 1, step) for step in range(count))
        planned = plan(stage("s", recovery=Recovery(keep=keep)))
        return after(planned, *placed(1), *saved).stages["s"]

    few = run_of(20_000, keep=3)
    assert few.attempts[0].saved == tuple(range(20_000 - NEWEST_SAVED, 20_000))
    assert few.kept == (19_997, 19_998, 19_999)
    many = run_of(1000, keep=500)
    assert many.kept == many.attempts[0].saved == tuple(range(500, 1000))
