"""MLflow runs whose controller has died are ended, and go on where the run does."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.adapters.mlflow_tracker import MlflowTracker, reap
from orchestrator.core.errors import TrackingError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.states import AttemptFailed, AttemptSucceeded, RunStarted, RunSucceeded
from tests.adapters.mlflow_tracker.conftest import START, Tale
from tests.adapters.mlflow_tracker.seen import Seen

SECONDS = 60.0
REASON = "its controller showed no life since 12:00:00"
Track = Callable[..., MlflowTracker]


@pytest.fixture
def orphan(tale: Callable[..., Tale], track: Track) -> Tale:
    """A run that is shown as running, with an attempt; another attempt of it has ended."""
    story = tale()
    story.succeed("data")
    story.begin("pretrain")
    assert track(story).close(SECONDS)
    return story


def test_what_an_orphaned_run_left_running_is_killed_and_says_why(
    orphan: Tale, uri: str, experiment: str
) -> None:
    assert reap(uri, experiment, ["other", "r2-1"], REASON, START + 90) == 2
    assert reap(uri, experiment, ["r2-1"], REASON, START + 99) == 0, "nothing is left to end"
    found = Seen(uri, experiment)
    killed = {key: run for key, run in found.runs.items() if run.info.status == "KILLED"}
    assert set(killed) == {"r2-1", "r2-1/pretrain/1"}
    assert {run.info.end_time for run in killed.values()} == {round((START + 90) * 1000)}
    assert {run.data.tags["orchestrator.orphaned"] for run in killed.values()} == {REASON}
    assert found.runs["r2-1/data/1"].info.status == "FINISHED"


def test_a_run_that_is_resumed_goes_on_under_the_same_parent(
    orphan: Tale, track: Track, uri: str, experiment: str
) -> None:
    before = Seen(uri, experiment).runs["r2-1"].info.run_id
    reap(uri, experiment, ["r2-1"], REASON, START + 90)
    lost = Failure(kind=FailureKind.CONTROLLER_LOST, evidence="no life", pool="nvidia")
    orphan.say(RunStarted(2), AttemptFailed("pretrain", 1, lost))
    orphan.retry("pretrain", "nvidia")
    orphan.begin("pretrain", 2)
    assert track(orphan).close(SECONDS)
    found = Seen(uri, experiment)
    assert found.runs["r2-1"].info.run_id == before
    states = {key: run.info.status for key, run in found.runs.items()}
    assert states == {
        "r2-1": "RUNNING",
        "r2-1/data/1": "FINISHED",
        "r2-1/pretrain/1": "FAILED",
        "r2-1/pretrain/2": "RUNNING",
    }
    assert not any("orchestrator.orphaned" in run.data.tags for run in found.runs.values())

    orphan.say(AttemptSucceeded("pretrain", 2, None))
    orphan.succeed("evaluate")
    orphan.succeed("serve", 1, "ascend")
    orphan.say(RunSucceeded())
    assert track(orphan).close(SECONDS)
    ended = Seen(uri, experiment).runs["r2-1"]
    assert (ended.info.status, ended.info.end_time) == ("FINISHED", round(orphan.at * 1000))


def test_where_nothing_was_ever_shown_nothing_is_made(uri: str) -> None:
    assert reap(uri, "no such experiment", ["r2-1"], REASON, START) == 0
    with pytest.raises(AssertionError):
        Seen(uri, "no such experiment")


def test_mlflow_being_away_is_said() -> None:
    with pytest.raises(TrackingError, match="refused"):
        reap("http://127.0.0.1:9", "experiment", ["r2-1"], REASON, START)


def test_the_tracker_of_a_controller_shows_nothing_of_one_that_took_over(
    orphan: Tale, track: Track, uri: str, experiment: str
) -> None:
    ours = len(orphan.store.events(orphan.name))
    lost = Failure(kind=FailureKind.CONTROLLER_LOST, evidence="no life", pool="nvidia")
    orphan.say(RunStarted(2), AttemptFailed("pretrain", 1, lost))
    orphan.retry("pretrain", "nvidia")
    orphan.begin("pretrain", 2)
    assert track(orphan, upto=lambda: ours).close(SECONDS)
    found = Seen(uri, experiment)
    assert set(found.runs) == {"r2-1", "r2-1/data/1", "r2-1/pretrain/1"}
    assert found.runs["r2-1/pretrain/1"].info.status == "RUNNING"
