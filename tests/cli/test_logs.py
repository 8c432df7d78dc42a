"""Logs that are here are printed; of those that are not, it is said where they are."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator import wiring
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import (
    AttemptFailed,
    AttemptStarted,
    Event,
    RunFailed,
    RunStarted,
    StageFailed,
)
from orchestrator.messages import Lease
from orchestrator.supervisor import holder
from tests.build import failure, plan, stage
from tests.conftest import Command

FAR = "gpu-7/another boot/12/34"
WORKING: tuple[Event, ...] = (RunStarted(1), AttemptStarted("s", 1, "a"))
ENDED = (
    *WORKING,
    AttemptFailed("s", 1, failure()),
    StageFailed("s", "broken"),
    RunFailed("broken"),
)


@pytest.fixture
def home(tmp_path: Path, within: Command) -> Path:
    at = tmp_path / ".orchestrator"
    at.mkdir()
    return at


def recorded(home: Path, *events: Event, **tags: str) -> SqlDatabase:
    """Have a run of one stage with these events in the store."""
    store = wiring.database(home)
    store.create(RunHeader(run="run-1", plan=plan(stage("s")), tags=tags), 1.0)
    store.append("run-1", 1, events, 2.0)
    return store


def lease(epoch: int, of: str) -> Lease:
    return Lease(run="run-1", epoch=epoch, at=wiring.clock().now(), holder=of)


def test_logs_on_the_machine_of_the_controller_are_named(within: Command, home: Path) -> None:
    recorded(home, *WORKING).renew_lease(lease(1, FAR))
    for words in ((), ("s",), ("-f",)):
        done = within("logs", "run-1", *words)
        assert (done.returncode, done.stdout) == (102, "")
        assert done.stderr == (
            f"error: the logs of run 'run-1' are not in {str(home / 'logs')!r}: they are with its "
            "controller (process 12 on gpu-7); ask there, or set ORCHESTRATOR_HOME to its home\n"
        )


def test_logs_of_a_run_that_ended_elsewhere_are_perhaps_where_it_was_launched(
    within: Command, home: Path
) -> None:
    recorded(home, *ENDED, **{"orchestrator.host": "laptop-3"})
    done = within("logs", "run-1")
    assert done.returncode == 102
    assert "they are where it was driven, perhaps on laptop-3; ask there" in done.stderr


def test_a_run_of_which_nothing_has_run_has_no_logs(within: Command, home: Path) -> None:
    recorded(home, RunStarted(1), StageFailed("s", "no pool"), RunFailed("no pool was left"))
    done = within("logs", "run-1")
    assert done.returncode == 0
    said = "Run run-1 has no logs: nothing of it has run: no pool was left.\n"
    assert done.stdout == said


def test_what_is_here_is_printed_and_what_is_written_elsewhere_now_is_named(
    within: Command, home: Path
) -> None:
    store = recorded(home, *WORKING)
    folder = home / "logs" / "run-1"
    folder.mkdir(parents=True)
    (folder / "s.1.log").write_text("[0] hello\n")
    store.renew_lease(lease(1, holder.name()))
    here = within("logs", "run-1")
    assert (here.returncode, here.stdout, here.stderr) == (0, "(s.1) [0] hello\n", "")
    store.renew_lease(lease(2, FAR))
    moved = within("logs", "run-1")
    assert (moved.returncode, moved.stdout) == (0, "(s.1) [0] hello\n")
    assert moved.stderr == "What it writes now is with its controller (process 12 on gpu-7).\n"


def test_a_run_says_from_which_machine_it_was_launched(orchestrator: Command, home: Path) -> None:
    assert (
        orchestrator("launch", "pipeline=noop", "cluster=local", "tracking=none").returncode == 0
    )
    (header,) = wiring.database(home).runs()
    assert header.tags["orchestrator.host"] == socket.gethostname()
