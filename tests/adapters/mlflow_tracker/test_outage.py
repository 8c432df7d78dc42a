"""Lost answers and a server that goes away: nothing is lost, nothing is written twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator import supervisor
from orchestrator.adapters import mlflow_server
from orchestrator.adapters.mlflow_tracker import MlflowTracker, ServerAccess
from orchestrator.adapters.mlflow_tracker.experiment import (
    MlflowExperiment,
    MlflowRun,
)
from orchestrator.adapters.mlflow_tracker.mlflow_errors import AwayError
from orchestrator.adapters.mlflow_tracker.projection import Projection
from orchestrator.core.runs.states import AttemptSucceeded, RunSucceeded
from tests.adapters.mlflow_tracker.seen import Seen

SECONDS = 60.0
Track = Callable[..., MlflowTracker]
Tell = Callable[..., "object"]


class Deaf(MlflowExperiment):
    """A server whose answers get lost, ever more rarely, once the request has gone through."""

    asked, next_lost, gap = 0, 1, 1

    def create(self, name: str, tags: Mapping[str, str], start: float) -> MlflowRun:
        shown = super().create(name, tags, start)
        self._lose()
        return shown

    def log(self, run_id: str, **written: Any) -> None:
        super().log(run_id, **written)
        self._lose()

    def _lose(self) -> None:
        self.asked += 1
        if self.asked == self.next_lost:
            self.gap += 1
            self.next_lost += self.gap
            raise AwayError("the answer was lost")


def test_answers_that_are_lost_neither_lose_nor_double_anything(
    tale: Tell, uri: str, experiment: str
) -> None:
    story = tale()
    story.to_the_end(steps=300)
    projection = Projection(story.store, story.name, Deaf(uri, experiment), story.output)
    lost = 0
    while not _synced(projection, story.at):
        lost += 1
    projection.close()
    assert lost >= 3
    found = Seen(uri, experiment)
    assert len(found.runs) == 5
    assert {run.info.status for run in found.runs.values()} == {"FINISHED"}
    assert found.count("r2-1/pretrain/1", "lr") == 300
    assert found.count("r2-1", "pretrain/lr") == 300
    assert found.count("r2-1", "evaluate/accuracy") == 1


def test_a_request_that_a_hung_server_answers_late_makes_nothing_twice(
    tale: Tell, uri: str, experiment: str
) -> None:
    story = tale()
    story.to_the_end(steps=20)
    slow = Slow(uri, experiment)
    projection = Projection(story.store, story.name, slow, story.output)
    assert not _synced(projection, story.at), "the answer to the first `create` is lost"
    assert not _synced(projection, story.at), "all is written, but what was asked first may follow"
    slow.wake_up()
    assert _synced(projection, story.at)
    projection.close()
    found = Seen(uri, experiment)
    assert len(found.runs) == 5
    assert found.curve("r2-1", "pretrain/lr") == list(range(1, 21))
    assert found.runs["r2-1"].info.status == "FINISHED"


class Slow(MlflowExperiment):
    """A server that hangs at the first `create`, and does that only when it wakes up."""

    asked: tuple[str, Mapping[str, str], float] | None = None

    def create(self, name: str, tags: Mapping[str, str], start: float) -> MlflowRun:
        if self.asked is None:
            self.asked = (name, tags, start)
            raise AwayError("timed out")
        return super().create(name, tags, start)

    def wake_up(self) -> None:
        assert self.asked is not None
        super().create(*self.asked)


def _synced(projection: Projection, now: float) -> bool:
    try:
        return projection.sync(now)
    except AwayError:
        return False


def test_a_server_that_hangs_holds_nobody_up_and_gets_the_rest_when_it_wakes_up(
    tale: Tell,
    track: Track,
    home: Path,
    uri: str,
    experiment: str,
) -> None:
    story = tale()
    story.succeed("data")
    assert track(story).close(SECONDS)
    story.finish_from_training(100)
    with _stopped(home):
        began = time.monotonic()
        assert not track(story, access=ServerAccess(seconds=0.3)).close(1.0)
        assert time.monotonic() - began < 2.0
    assert track(story).close(SECONDS)
    found = Seen(uri, experiment)
    assert len(found.runs) == 5
    assert {run.info.status for run in found.runs.values()} == {"FINISHED"}
    assert found.curve("r2-1/pretrain/1", "lr") == list(range(1, 101))
    assert found.curve("r2-1", "pretrain/lr") == list(range(1, 101))


@contextmanager
def _stopped(home: Path) -> Iterator[None]:
    """Have the server of `home` hang: it takes connections and never answers."""
    found = supervisor.find(home, mlflow_server.SERVICE)
    assert found is not None
    group = os.getpgid(found.processes["server"])
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_outage_loses_nothing_and_writes_nothing_twice(
    tale: Tell, track: Track, home: Path, uri: str, experiment: str
) -> None:
    story = tale()
    story.succeed("data")
    story.train_points(1, 300)
    story.begin("pretrain")
    tracker = track(story)
    while not any(story.store.cursors.values()):
        tracker.notify()
    assert mlflow_server.down(home)
    story.say(AttemptSucceeded("pretrain", 1, None, {"loss": 0.5}))
    story.succeed("evaluate", accuracy=0.5)
    tracker.notify()
    assert mlflow_server.up(home) == uri
    story.succeed("serve", 1, "ascend")
    story.say(RunSucceeded())
    tracker.notify()
    assert tracker.close(SECONDS)
    found = Seen(uri, experiment)
    assert len(found.runs) == 5
    assert {run.info.status for run in found.runs.values()} == {"FINISHED"}
    assert found.count("r2-1/pretrain/1", "lr") == 300
    assert found.count("r2-1", "pretrain/lr") == 300
