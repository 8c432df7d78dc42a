"""All attempts of a stage make one curve on the run, with one value a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from orchestrator.adapters.mlflow_tracker import MlflowTracker
from orchestrator.core.runs.states import (
    AttemptResumed,
    AttemptSucceeded,
    RunStarted,
    RunSucceeded,
)
from orchestrator.ports import Curve, Point
from tests.adapters.mlflow_tracker.conftest import Tale
from tests.adapters.mlflow_tracker.seen import Seen
from tests.memory import MemoryStore

SECONDS = 60.0
Track = Callable[..., MlflowTracker]


@pytest.fixture
def seen(uri: str, experiment: str) -> Callable[[], Seen]:
    """Return how to look at the server."""
    return lambda: Seen(uri, experiment)


@pytest.fixture
def interrupted(tale: Callable[..., Tale]) -> Tale:
    """A run whose first attempt saved at 10, 20 and 30 and has come to step 35."""
    story = tale(train=("ascend", "nvidia"))
    story.succeed("data")
    story.begin("pretrain", 1, "ascend")
    story.train_points(1, 35)
    story.save("pretrain", 1, 10, 20, 30)
    return story


def _goes_on(story: Tale, step: int) -> None:
    story.train_points(1, 40, first=36)
    story.fail("pretrain", 1, "ascend", following="nvidia", begin=False)
    story.begin("pretrain", 2, "nvidia")
    story.say(AttemptResumed("pretrain", 2, step))


def _ends(story: Tale, first: int) -> None:
    story.train_points(2, 60, first=first)
    story.say(AttemptSucceeded("pretrain", 2, None, {"loss": 0.1}))
    story.succeed("evaluate", 1, "nvidia")
    story.succeed("serve", 1, "ascend")
    story.say(RunSucceeded())


def test_the_run_shows_an_attempt_up_to_its_last_checkpoint(
    interrupted: Tale, track: Track, seen: Callable[[], Seen]
) -> None:
    assert track(interrupted).close(SECONDS)
    assert seen().curve("r2-1", "pretrain/lr") == list(range(1, 31))
    assert seen().curve("r2-1/pretrain/1", "lr") == list(range(1, 36))


@pytest.mark.parametrize("followed", [False, True])
@pytest.mark.parametrize("resumed", [30, 20])
def test_the_curve_goes_on_where_the_next_attempt_resumed(
    interrupted: Tale, track: Track, seen: Callable[[], Seen], *, followed: bool, resumed: int
) -> None:
    if followed:
        assert track(interrupted).close(SECONDS)
    _goes_on(interrupted, resumed)
    if followed:
        assert track(interrupted).close(SECONDS)
    _ends(interrupted, resumed + 1)
    assert track(interrupted).close(SECONDS)
    found = seen()
    assert found.curve("r2-1", "pretrain/lr") == list(range(1, 61))
    assert found.curve("r2-1", "pretrain/loss") == list(range(1, 62)), "the last is the result"
    losses = found.history("r2-1", "pretrain/loss")
    first = [point.value == 4.0 / point.step + 0.001 for point in losses]
    assert sum(first) == (30 if followed else resumed), "what the run shows already stays"
    assert found.curve("r2-1/pretrain/1", "lr") == list(range(1, 41))
    assert found.runs["r2-1"].data.metrics["orchestrator/lost_steps"] == 40 - resumed


def test_the_story_says_what_was_lost(
    interrupted: Tale, track: Track, seen: Callable[[], Seen]
) -> None:
    lines = [f"[{rank}] step {step}" for step in range(100) for rank in range(2)]
    interrupted.prints("pretrain", 1, "\n".join([*lines, "[0] after-effect", ""]))
    _goes_on(interrupted, 30)
    _ends(interrupted, 31)
    assert track(interrupted).close(SECONDS)
    found = seen()
    assert (
        found.runs["r2-1"]
        .data.tags["summary"]
        .startswith(
            "Failed in pretrain on ascend at step 40: interconnect, EI0002: Notify register times "
            "out; fell back to nvidia, resumed from step 30 (10 steps lost). Trained on nvidia"
        )
    )
    report = found.text("r2-1/pretrain/1", "failure.md")
    for line in (
        "# pretrain, attempt 1 on ascend (emulated Ascend 910C): interconnect",
        "    EI0002: Notify register times out",
        "- **node:** ascend-0",
        "- **rank:** 1",
        "- **step:** 40",
        "- **last checkpoint:** step 30",
        "- **decision:** interconnect: fall back to nvidia",
        "- **went on:** attempt 2 on nvidia (emulated H100) from step 30; 10 steps lost",
        "    [1] step 99",
        "    rank 1 saw it first",
    ):
        assert line in report.splitlines()
    assert "[0]" not in report, "the first rank decides"


def test_a_run_that_is_given_up_shows_all_of_its_last_attempt(
    interrupted: Tale, track: Track, seen: Callable[[], Seen]
) -> None:
    interrupted.give_up("pretrain", 1)
    assert track(interrupted).close(SECONDS)
    found = seen()
    assert found.curve("r2-1", "pretrain/lr") == list(range(1, 36))
    assert found.runs["r2-1"].info.status == "FAILED"
    assert "failure.md" in found.files("r2-1/pretrain/1")


def test_another_controller_goes_on_with_the_curve(
    interrupted: Tale, track: Track, seen: Callable[[], Seen]
) -> None:
    assert track(interrupted).close(SECONDS)
    interrupted.say(RunStarted(2))
    _goes_on(interrupted, 30)
    assert track(interrupted).close(SECONDS)
    interrupted.store.cursors.clear()
    _ends(interrupted, 31)
    assert track(interrupted).close(SECONDS)
    assert seen().curve("r2-1", "pretrain/lr") == list(range(1, 61))


class Noting(MemoryStore):
    """A store that notes which points are read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.after: list[int] = []
        self.steps: list[int] = []

    def points(self, run: str, after: int = 0, limit: int = 10_000) -> Sequence[Point]:
        self.after.append(after)
        return super().points(run, after, limit)

    def curve_points(self, run: str, curve: Curve, above: float, upto: int) -> Sequence[Point]:
        points = super().curve_points(run, curve, above, upto)
        self.steps.extend(point.step for point in points)
        return points


def test_who_goes_on_reads_of_the_points_before_those_alone_that_are_not_shown_yet(
    interrupted: Tale, track: Track, seen: Callable[[], Seen]
) -> None:
    assert track(interrupted).close(SECONDS)
    (shown,) = (at for name, at in interrupted.store.cursors.items() if name.startswith("mlflow/"))
    store = Noting()
    store.__dict__.update(interrupted.store.__dict__)
    interrupted.store = store
    interrupted.save("pretrain", 1, 33)
    assert track(interrupted).close(SECONDS)
    assert min(store.after) == shown
    assert set(store.steps) == {31, 32, 33, 34, 35}
    assert seen().curve("r2-1", "pretrain/lr") == list(range(1, 34))
