"""A run and what the fold of its events leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.run import Attempt, Run
from orchestrator.core.runs.states import AttemptSucceeded, StageReused, StageState
from orchestrator.ports import Stored

_GIVEN_UP = frozenset({StageState.FAILED, StageState.PAUSED})


@dataclass(slots=True)
class TrackedRun:
    """A run so far, and what its fold leaves out.

    `finished` has the time (seconds, epoch) at which a stage got its result, made or reused.
    """

    run: Run
    finished: dict[str, float] = field(default_factory=dict)

    def tell(self, stored: Stored) -> None:
        """Take in the next event."""
        event = stored.event
        if isinstance(event, AttemptSucceeded | StageReused):
            self.finished[event.stage] = stored.at
        self.run = apply(self.run, event, stored.at)

    def next_to(self, attempt: Attempt) -> Attempt | None:
        """Return the attempt that came after `attempt`."""
        after = self.run.stages[attempt.stage].attempts[attempt.number :]
        return after[0] if after else None

    @property
    def failures(self) -> int:
        """How many attempts have failed."""
        return sum(attempt.failure is not None for attempt in self.attempts)

    @property
    def attempts(self) -> Iterator[Attempt]:
        """All attempts, stage by stage."""
        return (attempt for stage in self.run.stages.values() for attempt in stage.attempts)

    @property
    def failure(self) -> Attempt | None:
        """The failed attempt that matters: the last of the stage given up, else the latest."""
        failed = [attempt for attempt in self.attempts if attempt.failure]
        given_up = [a for a in failed if self.run.stages[a.stage].state in _GIVEN_UP]
        return max(given_up or failed, key=lambda a: a.ended or 0.0, default=None)


def has_begun(attempt: Attempt) -> bool:
    """Whether it is known from where an attempt of a job that saves checkpoints began."""
    return attempt.resumed is not None or bool(attempt.saved) or not attempt.active
