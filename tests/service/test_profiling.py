"""Whose stacks are asked for, and what is said where nothing can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.core.errors import ClusterError, NotFoundError, OrchestratorError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    AttemptPlaced,
    AttemptStarted,
    AttemptWaits,
    Event,
    RunStarted,
)
from orchestrator.service.profiling import profile

BEGUN = (RunStarted(1), AttemptStarted("noop", 1, "nvidia"))
PLACED = (*BEGUN, AttemptPlaced("noop", 1, ("n1", "n2")))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    monkeypatch.delenv("ORCHESTRATOR_DATABASE", raising=False)
    return tmp_path


def happened(home: Path, events: Sequence[Event]) -> None:
    settings = wiring.settings(["pipeline=noop", "cluster=local"])
    store = wiring.database(home)
    plan = wiring.plan(settings)
    store.create(RunHeader(run="run-1", plan=plan, config=settings.resolved), 1.0)
    store.append("run-1", 1, events, 2.0)


@pytest.mark.parametrize(
    ("events", "stage", "rank", "error", "words"),
    [
        (PLACED, "train", 0, NotFoundError, r"run 'run-1' has no stage 'train'; stages: noop"),
        (PLACED, "noop", 2, NotFoundError, r"stage 'noop' has no worker 2; its ranks: 0 to 1"),
        ((RunStarted(1),), "noop", 0, ClusterError, r"'noop' is pending: nothing of it runs"),
        (BEGUN, "noop", 0, ClusterError, r"stage 'noop' has no place yet$"),
        (
            (*BEGUN, AttemptWaits("noop", 1, "others hold it")),
            "noop",
            0,
            ClusterError,
            r"has no place yet: others hold it",
        ),
        (PLACED, "noop", 1, ClusterError, r"no cluster is up"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_in_a_line(
    home: Path,
    events: Sequence[Event],
    stage: str,
    rank: int,
    error: type[OrchestratorError],
    words: str,
) -> None:
    happened(home, events)
    with pytest.raises(error, match=words):
        profile("run", stage, rank=rank)


def test_the_worker_of_the_attempt_that_runs_is_asked_for(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened(home, PLACED)
    asked = list[object]()

    def stacks(_settings: object, _home: Path, *what: object, **how: object) -> bytes:
        asked.append((*what, how))
        return b"stacks"

    monkeypatch.setattr(wiring, "stacks", stacks)
    assert profile("run-1", "noop", rank=1, seconds=3.0, form="raw") == b"stacks"
    assert asked == [("run-1/noop/1", 1, {"seconds": 3.0, "form": "raw"})]
