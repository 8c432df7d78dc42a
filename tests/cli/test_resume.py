"""Runs whose controller was killed: what commands say of them, and do with them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from orchestrator.supervisor.record import wait
from tests.conftest import Command

pytestmark = pytest.mark.services  # it starts none, but makes the two halves equal

JOB = """\
import time
from pathlib import Path


def hold(ctx):
    Path(__file__).with_name("began").touch()
    while not Path(__file__).with_name("go").exists():
        time.sleep(0.05)
    return {}
"""
OWN = ("jobs.packages=[mine]", "jobs.code=[.]", "pipeline.stages.noop.job=mine.hold")
HOLD = ("launch", "cluster=local", "tracking=none", "pipeline=noop", *OWN)


class Killed:
    """A launch that was killed in its only stage; `finish` lets the stage end."""

    def __init__(self, command: Command, folder: Any, environment: dict[str, str]) -> None:
        self.command, self.folder, self.environment = command, folder, environment
        (folder / "mine.py").write_text(JOB)
        self.process = self.begin(*HOLD)
        self.until_begun()
        self.run: str = self.status()["run"]

    def begin(self, *words: str) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        return subprocess.Popen(
            [sys.executable, "-m", "orchestrator", *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def until_begun(self) -> None:
        assert wait((self.folder / "began").exists, 60)
        (self.folder / "began").unlink()

    def kill(self) -> None:
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.communicate()

    def finish(self) -> None:
        (self.folder / "go").touch()

    def status(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.command("status", "--json").stdout)
        return found[0]


@pytest.fixture
def held(orchestrator, tmp_path, environment):
    made = Killed(orchestrator, tmp_path, environment)
    yield made
    if made.process.poll() is None:
        made.kill()


def test_a_lost_run_is_told_and_goes_on(held):
    refused = held.command("resume", held.run)
    assert refused.returncode == 1
    assert "has a controller since" in refused.stderr
    assert f"process {held.process.pid}" in refused.stderr
    held.kill()
    one = held.command("status", held.run)
    assert one.returncode == 101
    assert "its controller is gone since" in one.stdout
    assert f"orchestrator resume {held.run}" in one.stdout
    assert "lost" in held.command("status").stdout
    assert held.status()["controller"] == "gone"
    held.finish()
    done = held.command("resume", held.run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert held.status()["stages"][0]["attempts"] == 2
    again = held.command("resume", held.run)
    assert again.returncode == 0
    assert "has already ended: succeeded" in again.stdout
    assert "orchestrator launch cluster=local" in again.stdout


def test_a_run_can_be_taken_over_from_a_controller_that_lives(held):
    second = held.begin("resume", "--take-over", held.run)
    held.until_begun()
    said, _ = held.process.communicate(timeout=30)
    assert held.process.returncode == 1
    assert f"error: another controller has taken run {held.run} over (epoch 2)" in said
    assert "Traceback" not in said
    held.finish()
    assert second.wait(30) == 0, second.communicate()
    second.communicate()
    assert held.status()["state"] == "succeeded"


def test_a_lost_run_is_cancelled_by_the_command_itself(held):
    held.kill()
    done = held.command("cancel", held.run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert held.status()["state"] == "cancelled"


def test_a_cancelled_run_goes_on_when_somebody_wants_it_to(held):
    held.kill()
    held.command("cancel", held.run)
    held.finish()
    done = held.command("resume", held.run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert held.status()["state"] == "succeeded"
