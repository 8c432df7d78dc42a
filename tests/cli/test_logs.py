"""Logs are read from the database, wherever the run is driven, whole or in part."""

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
from orchestrator.messages import Lease, Progress
from orchestrator.ports import LogChunk
from tests.build import failure, plan, stage
from tests.conftest import Command

FAR = "gpu-7/another boot/12/34"
WORKING: tuple[Event, ...] = (RunStarted(1), AttemptStarted("s", 1, "a"))
FAILED: tuple[Event, ...] = (
    AttemptFailed("s", 1, failure()),
    StageFailed("s", "broken"),
    RunFailed("broken"),
)


@pytest.fixture
def home(tmp_path: Path, within: Command) -> Path:
    at = tmp_path / ".orchestrator"
    at.mkdir()
    return at


def recorded(home: Path, *events: Event) -> SqlDatabase:
    """Have a run of two stages with these events in the store, driven elsewhere."""
    store = wiring.database(home)
    store.create(RunHeader(run="run-1", plan=plan(stage("s"), stage("t"))), 1.0)
    store.append("run-1", 1, events, 2.0)
    return store


def printed(store: SqlDatabase, at: float, text: str, stage: str = "s", attempt: int = 1) -> None:
    store.add_log("run-1", [LogChunk(stage=stage, attempt=attempt, at=at, text=text)])


def test_a_run_of_which_nothing_has_run_has_no_logs(within: Command, home: Path) -> None:
    recorded(home, RunStarted(1), StageFailed("s", "no pool"), RunFailed("no pool was left"))
    done = within("logs", "run-1")
    assert done.returncode == 0
    said = "Run run-1 has no logs: nothing of it has run: no pool was left.\n"
    assert done.stdout == said


def test_what_another_host_writes_is_printed_in_order(within: Command, home: Path) -> None:
    store = recorded(home, *WORKING)
    now = wiring.clock().now()
    store.renew_lease(Lease(run="run-1", epoch=1, at=now, holder=FAR))
    printed(store, now - 4000, "[0] a\n[1] b\n")
    printed(store, now - 50, "[0] other\n", "t")
    printed(store, now - 40, "[0] c\n[1] d\n", attempt=2)
    everything = ["(s.1) [0] a", "(s.1) [1] b", "(t.1) [0] other", "(s.2) [0] c", "(s.2) [1] d"]
    for words, wanted in (
        ((), everything),
        (("s",), [line for line in everything if line.startswith("(s")]),
        (("--rank", "1"), ["(s.1) [1] b", "(s.2) [1] d"]),
        (("s", "--attempt", "2"), everything[3:]),
        (("--since", "10m"), everything[2:]),
        (("--tail", "2"), everything[3:]),
        (("s", "--tail", "3"), [everything[1], *everything[3:]]),
        (("--tail", "0"), []),
        (("--since", "10m", "--rank", "0", "--tail", "1"), ["(s.2) [0] c"]),
    ):
        done = within("logs", "run-1", *words)
        assert (done.returncode, done.stderr) == (0, ""), words
        assert done.stdout.splitlines() == wanted, words


def test_a_run_that_is_driven_elsewhere_is_followed_to_its_end(
    within: Command, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestrator.service.logs import Logs, Wanted

    monkeypatch.setenv("ORCHESTRATOR_HOME", str(home))
    store = recorded(home, *WORKING)
    store.renew_lease(Lease(run="run-1", epoch=1, at=wiring.clock().now(), holder=FAR))
    printed(store, 1.0, "[0] before\n[0] last before\n")
    lines = Logs(_stored(store), Wanted(tail=1)).lines(follow=True)
    assert next(lines) == "(s.1) [0] last before"
    printed(store, 2.0, "[0] then\n")
    assert next(lines) == "(s.1) [0] then"
    printed(store, 3.0, "[0] at last\n")
    store.append("run-1", len(WORKING) + 1, FAILED, 4.0)
    assert list(lines) == ["(s.1) [0] at last"]
    assert within("logs", "-f", "run-1").returncode == 100


def _stored(store: SqlDatabase):
    from orchestrator.service import runs

    return runs.load(store, store.header("run-1"))


@pytest.mark.parametrize("since", ["", "10x", "m", "1h 3m", "-5", "0s", "9999d"])
def test_what_is_no_duration_is_refused(within: Command, home: Path, since: str) -> None:
    done = within("logs", "run-1", f"--since={since}")
    assert done.returncode == 2
    assert f"{since!r} is no duration; write 90s, 10m, 1h30m or 2d" in done.stderr


def test_status_tells_how_far_stages_are_wherever_they_run(within: Command, home: Path) -> None:
    store = recorded(home, *WORKING)
    store.renew_lease(Lease(run="run-1", epoch=1, at=wiring.clock().now(), holder=FAR))
    store.note_progress("run-1", ("s", 1), Progress(40, 1600))
    assert " 40/1600 " in within("status", "run-1").stdout


def test_a_run_says_from_which_machine_it_was_launched(orchestrator: Command, home: Path) -> None:
    assert (
        orchestrator("launch", "pipeline=noop", "cluster=local", "tracking=none").returncode == 0
    )
    (header,) = wiring.database(home).runs()
    assert header.tags["orchestrator.host"] == socket.gethostname()
