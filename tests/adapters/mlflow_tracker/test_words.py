"""What a run's description says of a failure."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from orchestrator.adapters.mlflow_tracker.fields import run_tags
from orchestrator.adapters.mlflow_tracker.tracked_run import TrackedRun
from orchestrator.adapters.mlflow_tracker.words import _why, description
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.runs.fold import begin
from orchestrator.core.runs.states import (
    AttemptPlaced,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    RunStarted,
)
from orchestrator.ports import Stored
from tests.build import failure, header, plan, stage


def test_a_long_line_of_evidence_ends_at_a_word_and_says_that_it_goes_on() -> None:
    said = _why(failure(FailureKind.INTERCONNECT, f"EI0002: {'waits for rank ' * 20}."))
    assert said.startswith("interconnect, EI0002: waits for rank")
    assert said.endswith(("waits ...", "for ...", "rank ..."))
    short = _why(failure(FailureKind.INTERCONNECT, "EI0002: times out.\nand so on"))
    assert short == "interconnect, EI0002: times out"


def told(*events: Event) -> TrackedRun:
    """Return the story of a run that was created at 0.5, with an event each second."""
    story = TrackedRun(begin(replace(header(plan(stage("s"), stage("t"))), created=0.5)))
    for seq, event in enumerate(events, 1):
        story.tell(Stored("run", seq, 0.5 + seq, event))
    return story


RUNNING: tuple[Event, ...] = (
    RunStarted(1),
    *(AttemptStarted("s", 1, "a"), AttemptPlaced("s", 1, ("n",))),
    *(AttemptStarted("t", 1, "a"), AttemptPlaced("t", 1, ("n",))),
)


def test_turns_within_a_minute_write_the_description_of_a_running_run_once() -> None:
    story = told(*RUNNING)
    turns = [0.5 + 0.25 * turn for turn in range(24, 10 * 240)]
    notes = [run_tags(story, now)["mlflow.note.content"] for now in turns]
    changes = [now for now, (a, b) in zip(turns[1:], pairwise(notes), strict=True) if a != b]
    assert changes == [0.5 + 60 * minute for minute in range(2, 10)]
    assert "| running | 1 | 8 min so far |" in notes[-1]


def test_what_has_ended_is_told_to_the_second() -> None:
    story = told(*RUNNING, AttemptSucceeded("s", 1, None))
    assert "| s | train | a | succeeded | 1 | 4 s |" in description(story, 500.0)
    assert "| running | 1 | 138 h 52 min |" in description(story, 500_000.0)
