"""From what an attempt says to the events that are recorded of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.controller.message_handling import LastSteps, event_of
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.run import Attempt
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptPlaced,
    AttemptResumed,
    AttemptSaved,
    AttemptState,
    AttemptSucceeded,
    AttemptWaits,
    Event,
)
from orchestrator.messages import (
    Alive,
    Failed,
    LogLine,
    Message,
    Placed,
    Points,
    Progress,
    Resumed,
    Saved,
    Succeeded,
    Waiting,
)
from tests.build import REF, failure

ATTEMPT = Attempt(stage="s", number=2, pool="a", state=AttemptState.WAITING, started=0.0)
KILLED = Failure(kind=FailureKind.WORKER_LOST, evidence="killed")


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (Waiting("busy"), AttemptWaits("s", 2, "busy")),
        (Placed(("n",)), AttemptPlaced("s", 2, ("n",))),
        (Resumed(3), AttemptResumed("s", 2, 3)),
        (Saved(4), AttemptSaved("s", 2, 4)),
        (Succeeded(REF, {"a": 1.0}), AttemptSucceeded("s", 2, REF, {"a": 1.0})),
        (Failed(failure()), AttemptFailed("s", 2, failure())),
        (Points(1, {}, 0.0), None),
        (Progress(1, 2), None),
        (Alive(0, 1), None),
        (LogLine(0, "x"), None),
    ],
)
def test_each_message_is_the_event_that_it_tells_of(message: Message, event: Event | None) -> None:
    assert event_of(ATTEMPT, message) == event


def test_a_reason_to_wait_is_told_once() -> None:
    assert event_of(replace(ATTEMPT, waits="busy"), Waiting("busy")) is None


def test_a_failure_without_a_step_gets_the_last_one_that_was_heard() -> None:
    steps = LastSteps()
    for message in (Resumed(10), Points(12, {}, 0.0), Alive(1, 14), Alive(0, None), Saved(11)):
        assert steps.heard(ATTEMPT, message) is message
    told = steps.heard(ATTEMPT, Failed(KILLED))
    assert isinstance(told, Failed)
    assert told.failure.step == 14
    assert steps.located("s", 1, KILLED).step is None
    assert steps.located("s", 2, failure()) == failure()
