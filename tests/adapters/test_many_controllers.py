"""Many controllers, each a process, on one PostgreSQL: no run is lost, none is driven twice."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.adapters.clock import SystemClock
from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.runs.states import AttemptStarted, RunStarted, RunState, RunSucceeded
from orchestrator.service.runs import load
from tests.build import header, plan, stage
from tests.postgres import PostgresServer, server

STAGES = ("s", "t")
POINTS = 4  # of each attempt


class Controllers:
    """Runs that nobody has begun, and the processes that drive them."""

    def __init__(self, url: str, file: Path, runs: int) -> None:
        self.store, self._url, self._file = SqlDatabase(url), url, file
        self.names = [f"run-{number:03d}" for number in range(runs)]
        planned = plan(stage("s"), stage("t", "s"))
        for name in self.names:
            self.store.create(header(planned, name), self.store.now())

    def start(self, count: int, environment: dict[str, str]) -> list[subprocess.Popen[str]]:
        words = [sys.executable, "-m", "tests.many_controllers", self._url, str(self._file)]
        return [
            subprocess.Popen(
                [*words, str(seed)],
                env=environment,
                stderr=subprocess.PIPE,
                text=True,
            )
            for seed in range(count)
        ]

    def started(self) -> list[str]:
        """Return the attempts that were started so far."""
        text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
        return text.splitlines()

    def check(self) -> None:
        """Each run has succeeded, by one controller, with each stage started once."""
        for name in self.names:
            run = load(self.store, self.store.header(name))
            stored = self.store.events(name)
            kinds = Counter(type(item.event) for item in stored)
            assert run.state is RunState.SUCCEEDED, name
            assert [item.seq for item in stored] == list(range(1, len(stored) + 1)), name
            seen = (kinds[RunStarted], kinds[AttemptStarted], kinds[RunSucceeded])
            assert seen == (1, len(STAGES), 1), name
            assert len(self.store.points(name)) == POINTS * len(STAGES), name
        assert Counter(self.started()) == {
            f"{name}/{s}/1": 1 for name in self.names for s in STAGES
        }
        self.store.close()


def test_four_controllers_drive_sixteen_runs_once_each(
    postgres: PostgresServer, tmp_path: Path, environment: dict[str, str]
) -> None:
    controllers = Controllers(postgres.schema(), tmp_path / "started", runs=16)
    processes = controllers.start(4, environment)
    said = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4, said
    controllers.check()


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_ten_controllers_drive_two_hundred_runs_once_each_while_the_server_restarts(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    clock = SystemClock()
    with server() as own:
        controllers = Controllers(own.schema(), tmp_path / "started", runs=200)
        processes = controllers.start(10, environment)
        while len(controllers.started()) < 60:
            clock.sleep(0.1)
        own.stop()
        clock.sleep(1.0)
        own.start()
        said = [process.communicate(timeout=800)[1] for process in processes]
        broken = [text for p, text in zip(processes, said, strict=True) if p.returncode]
        assert not broken, broken[0]
        controllers.check()
