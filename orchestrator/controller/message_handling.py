"""From what an attempt says to the events that are recorded of it."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.core.failures.kinds import Failure
from orchestrator.core.runs.run import Attempt
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptResumed,
    AttemptSaved,
    AttemptSucceeded,
    AttemptWaits,
    Event,
)
from orchestrator.messages import (
    Alive,
    Failed,
    Message,
    Placed,
    Points,
    Resumed,
    Saved,
    Succeeded,
    Waiting,
)


class LastSteps:
    """How far each attempt had come when it was last heard: a killed worker can't say it."""

    def __init__(self) -> None:
        """Know of none."""
        self._last: dict[tuple[str, int], int] = {}

    def heard(self, attempt: Attempt, message: Message) -> Message:
        """Take notice of a step; add the last one known to a failure that has none."""
        if isinstance(message, Points | Resumed | Saved | Alive) and message.step is not None:
            key = (attempt.stage, attempt.number)
            self._last[key] = max(message.step, self._last.get(key, 0))
        if isinstance(message, Failed):
            located = self.located(attempt.stage, attempt.number, message.failure)
            return replace(message, failure=located)
        return message

    def located(self, stage: str, number: int, failure: Failure) -> Failure:
        """Return `failure` with the last step that is known of the attempt."""
        if failure.step is not None:
            return failure
        return replace(failure, step=self._last.get((stage, number)))


def event_of(attempt: Attempt, message: Message) -> Event | None:  # noqa: PLR0911 - one for each
    """Return the event that `message` is, or `None` for what is no event."""
    place = (attempt.stage, attempt.number)
    match message:
        case Waiting(reason=reason, queued=queued):
            known = (reason, queued) == (attempt.waits, attempt.queued)
            return None if known else AttemptWaits(*place, reason, queued)
        case Placed(nodes=nodes, software=software):
            return AttemptPlaced(*place, nodes, software)
        case Resumed(step=step):
            return AttemptResumed(*place, step)
        case Saved(step=step):
            return AttemptSaved(*place, step)
        case Succeeded(artifact=artifact, metrics=metrics):
            return AttemptSucceeded(*place, artifact, metrics)
        case Failed(failure=failure):
            return AttemptFailed(*place, failure)
    return None
