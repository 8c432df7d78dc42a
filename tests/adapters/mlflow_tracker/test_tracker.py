"""A run on a real MLflow server, as a tree that tells its story."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from orchestrator.adapters.mlflow_tracker import MlflowTracker
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.runs.states import (
    AttemptCancelled,
    AttemptFailed,
    AttemptStarted,
    AttemptSucceeded,
    CancelRequested,
    RunCancelled,
    RunPaused,
    RunReopened,
    RunStarted,
    RunSucceeded,
    StageCancelled,
    StagePaused,
    StageReused,
)
from orchestrator.core.settings import TrackingSettings
from orchestrator.messages import Points
from tests.adapters.mlflow_tracker.seen import Seen

SECONDS = 60.0
Track = Callable[..., MlflowTracker]
Tell = Callable[..., "object"]


@pytest.fixture
def seen(uri: str, experiment: str) -> Callable[[], Seen]:
    """Return how to look at the server."""
    return lambda: Seen(uri, experiment)


def test_a_run_is_a_tree_of_attempts_that_tells_of_its_fallback(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale(train=("ascend", "nvidia"))
    story.to_the_end(steps=30)
    story.prints("pretrain", 1, "[1] EI0002\n")
    assert track(story).close(SECONDS)

    found = seen()
    parent, failed = found.runs["r2-1"], found.runs["r2-1/pretrain/1"]
    children = [run for run in found.runs.values() if run is not parent]
    assert len(children) == 5
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    assert parent.info.run_name == "r2-1"
    assert parent.info.status == "FINISHED"
    assert parent.info.end_time == round(story.at * 1000)
    assert failed.info.status == "FAILED"
    assert {run.info.status for run in children if run is not failed} == {"FINISHED"}

    tags = parent.data.tags
    assert tags["mlflow.note.content"].startswith(
        "Failed in pretrain on ascend at step 40: interconnect, "
        "EI0002: Notify register times out; fell back to nvidia. "
        "Trained on nvidia (emulated H100), served on ascend (emulated Ascend 910C); "
        "finished after 17 s.\n"
    )
    expected = {
        "pool.train": "nvidia",
        "pool.serve": "ascend",
        "pools": "train ascend → nvidia, serve ascend",
        "failure.kind": "interconnect",
        "failure.stage": "pretrain",
        "state": "succeeded",
        "emulated": "true",
        "mlflow.user": "ada",
        "overrides": "roles.train=ascend",
    }
    assert expected.items() <= tags.items()
    expected = {
        "role": "train",
        "pool": "ascend",
        "accelerator": "Ascend 910C",
        "vendor": "Huawei",
        "emulated": "true",
        "node": "ascend-0",
        "stage": "pretrain",
        "attempt": "1",
        "state": "failed",
        "failure.rank": "1",
        "decision": "interconnect: fall back to nvidia",
    }
    assert expected.items() <= failed.data.tags.items()
    assert failed.data.params == {"lr": "0.001", "model.layers": "2", "model.sizes": "[1, 2]"}
    assert parent.data.params == {"pipeline.name": "r2", "seed": "0"}
    assert found.files("r2-1") == {"config.yaml", "plan.md", "plan.json"}
    assert found.files("r2-1/pretrain/1") == {"failure.md", "pretrain.1.log"}


def test_a_run_that_pauses_and_is_resumed_goes_on_as_the_same_mlflow_run(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale()
    story.begin("data")
    unknown = Failure(kind=FailureKind.UNKNOWN, evidence="xyzzy: unit 7", certain=False)
    story.say(AttemptFailed("data", 1, unknown))
    reason = "unknown: xyzzy: unit 7"
    story.say(StagePaused("data", reason), RunPaused(f"stage 'data' waits for you: {reason}"))
    assert track(story).close(SECONDS)
    paused = seen().runs
    assert paused["r2-1"].info.status == "KILLED"
    assert paused["r2-1"].data.tags["state"] == "paused"
    told = paused["r2-1"].data.tags["mlflow.note.content"]
    assert "`orchestrator resume r2-1` goes on" in told
    assert paused["r2-1/data/1"].data.tags["decision"] == f"pause: {reason}"

    rest = tuple(story.store.header("r2-1").plan.stages)
    stages = tuple(one.stage.name for one in rest)
    story.say(RunReopened(reason="go on", stages=stages), RunStarted(2))
    tracker = track(story)
    story.succeed("data", 2, examples=7.0)
    story.say(*(StageReused(name, None, {}, "other") for name in stages if name != "data"))
    story.say(RunSucceeded())
    assert tracker.close(SECONDS)
    found = seen().runs
    assert found["r2-1"].info.run_id == paused["r2-1"].info.run_id
    assert found["r2-1"].info.status == "FINISHED"
    assert found["r2-1"].data.metrics["data/examples"] == 7.0
    assert found["r2-1/data/1"].info.status == "FAILED"
    assert found["r2-1/data/2"].info.status == "FINISHED"


def test_headline_metrics_and_the_training_curve_stand_on_the_run_too(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale(train=("ascend", "nvidia"))
    story.to_the_end(steps=30)
    assert track(story).close(SECONDS)
    found = seen()
    metrics = found.runs["r2-1"].data.metrics
    assert metrics["evaluate/accuracy"] == 0.75
    assert metrics["data/examples"] == 2000.0
    assert metrics["pretrain/loss"] == 0.123, "what it ended with, not the last of the curve"
    assert metrics["orchestrator/failovers"] == 1.0
    assert metrics["orchestrator/lost_steps"] == 40.0
    assert metrics["orchestrator/duration_seconds"] == 17.0
    assert "orchestrator/cost_usd" not in metrics, "nobody knows the price of one pool"
    assert found.count("r2-1/pretrain/1", "lr") == 15
    assert found.count("r2-1/pretrain/2", "lr") == 30
    assert found.count("r2-1", "pretrain/lr") == 30, "the second attempt began anew"
    assert found.count("r2-1", "pretrain/loss") == 31


def test_a_replay_from_nothing_changes_nothing(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale(train=("ascend", "nvidia"))
    story.to_the_end(steps=30)
    assert track(story).close(SECONDS)
    before = seen().counts()
    story.store.cursors.clear()
    assert track(story).close(SECONDS)
    assert seen().counts() == before


def test_a_second_controller_goes_on_where_the_first_was_broken_off(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale()
    story.succeed("data")
    story.train_points(1, 20)
    story.begin("pretrain")
    assert track(story).close(SECONDS)
    assert seen().runs["r2-1/pretrain/1"].info.status == "RUNNING"

    story.say(RunStarted(2))
    story.train_points(1, 0)
    story.say(AttemptSucceeded("pretrain", 1, None, {"loss": 0.5}))
    story.succeed("evaluate", accuracy=0.5)
    story.succeed("serve", 1, "ascend")
    story.say(RunSucceeded())
    assert track(story).close(SECONDS)
    found = seen()
    assert found.runs["r2-1"].info.status == "FINISHED"
    assert found.runs["r2-1"].data.metrics["pretrain/loss"] == 0.5
    assert found.count("r2-1/pretrain/1", "lr") == 20


def test_a_cancelled_run_is_killed_with_its_attempts(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale()
    story.succeed("data")
    story.begin("pretrain")
    story.say(CancelRequested("Ctrl-C"), AttemptCancelled("pretrain", 1))
    story.say(StageCancelled("evaluate"), StageCancelled("serve"), RunCancelled())
    assert track(story).close(SECONDS)
    found = seen()
    assert found.runs["r2-1"].info.status == "KILLED"
    assert found.runs["r2-1/pretrain/1"].info.status == "KILLED"
    note = found.runs["r2-1"].data.tags["mlflow.note.content"]
    assert note.startswith("Cancelled after 10 s in pretrain on nvidia (emulated H100).")


def test_a_reused_stage_names_the_run_that_made_it(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale()
    story.say(StageReused("data", None, {"examples": 7.0}, "r2-0"))
    assert track(story).close(SECONDS)
    parent = seen().runs["r2-1"]
    assert parent.data.tags["reused.data"] == "r2-0"
    assert parent.data.metrics["data/examples"] == 7.0


def test_what_users_write_is_cut_and_mended_rather_than_refused(
    tale: Tell, track: Track, seen: Callable[[], Seen]
) -> None:
    story = tale(config={"long": "x" * 7000, "odd/../key!": 1, "none": None, "empty": ""})
    story.say(AttemptStarted("data", 1, "nvidia"))
    values = {"a/../b@0": 1.0, "loss": math.nan, "peak": math.inf, "..": 3.0}
    story.store.add_points("r2-1", "data", 1, [Points(1, values, story.at)])
    story.say(AttemptSucceeded("data", 1, None))
    assert track(story).close(SECONDS)
    found = seen()
    params = found.runs["r2-1"].data.params
    assert len(params["long"]) == 6000
    assert {"odd/key_": "1", "none": "null", "empty": ""}.items() <= params.items()
    metrics = found.runs["r2-1/data/1"].data.metrics
    assert set(metrics) == {"a/b_0", "loss", "peak", "_"}
    assert math.isnan(metrics["loss"])


def test_a_live_run_shows_its_heartbeat_and_the_load_of_the_host(
    tale: Tell, track: Track, seen: Callable[[], Seen], experiment: str
) -> None:
    story = tale()
    story.begin("data")
    settings = TrackingSettings(experiment=experiment, system_seconds=0.01)
    tracker = track(story, settings=settings)
    for _ in range(200):
        tracker.notify()
        if seen_or_none(seen) >= {"orchestrator/heartbeat", "system/host/cpu_percent"}:
            break
    assert tracker.close(SECONDS)
    metrics = seen().runs["r2-1"].data.metrics
    assert metrics["orchestrator/heartbeat"] == story.at
    assert metrics["system/host/memory_gb"] > 0


def seen_or_none(seen: Callable[[], Seen]) -> set[str]:
    try:
        return set(seen().runs["r2-1"].data.metrics)
    except (AssertionError, KeyError):
        return set()


def test_close_says_so_when_mlflow_is_away(tale: Tell, track: Track) -> None:
    story = tale()
    story.to_the_end()
    tracker = track(story, uri="http://127.0.0.1:9")
    tracker.notify()
    assert not tracker.close(0.5)
