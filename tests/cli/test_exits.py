"""How a command ends: what is to be typed stands after an error about a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.cli.exits import way_out
from orchestrator.core.errors import (
    ClusterError,
    ConfigError,
    HeldError,
    NotFoundError,
    OrchestratorError,
    Problem,
    StoreError,
)
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import AttemptStarted, RunStarted
from orchestrator.messages import Lease
from orchestrator.service import driving
from tests.build import plan, stage
from tests.conftest import Command

ERRORS: tuple[OrchestratorError, ...] = (
    HeldError("held"),
    ClusterError("away"),
    StoreError("full"),
    ConfigError([Problem("--continue", "it goes on", "end it first")]),
)
COMMANDS = (
    "; `orchestrator cancel r-1` ends it, `orchestrator resume --take-over r-1` takes it over",
    "; when it is up, run r-1 goes on: orchestrator resume r-1",
    "; when it is mended, run r-1 goes on: orchestrator resume r-1",
    ": orchestrator cancel r-1",
)


@pytest.mark.parametrize(("error", "said"), [*zip(ERRORS, COMMANDS, strict=True)])
def test_the_command_line_says_what_to_type_about_a_run(
    error: OrchestratorError, said: str
) -> None:
    assert way_out(type(error)([])) == ""
    error.run = "r-1"
    assert way_out(error) == said


def test_an_error_that_no_command_mends_has_no_way_out() -> None:
    error = NotFoundError("no such stage")
    error.run = "r-1"
    assert way_out(error) == ""


@pytest.fixture
def held(within: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a home whose run `run-1` is driven elsewhere."""
    monkeypatch.setenv("ORCHESTRATOR_HOME", str(tmp_path))
    store = wiring.database(tmp_path)
    store.create(RunHeader(run="run-1", plan=plan(stage("s"))), 1.0)
    store.append("run-1", 1, (RunStarted(1), AttemptStarted("s", 1, "a")), 2.0)
    store.renew_lease(Lease(run="run-1", epoch=1, at=store.now(), holder="gpu-7/boot/12/34"))
    return within


def test_a_use_case_names_the_run_and_no_command(held: Command, tmp_path: Path) -> None:
    store = wiring.database(tmp_path)
    with pytest.raises(HeldError) as refused:
        driving.claim(store, store.header("run-1"), by_force=False)
    assert refused.value.run == "run-1"
    assert "orchestrator" not in str(refused.value)


def test_the_command_that_is_refused_says_what_to_type(held: Command) -> None:
    resumed = held("resume", "run-1").stderr
    assert resumed.endswith("`orchestrator resume --take-over run-1` takes it over\n")
    continued = held("launch", "pipeline=noop", "--continue", "run-1").stderr
    assert continued.endswith("saves checkpoints; end it first: orchestrator cancel run-1\n")
