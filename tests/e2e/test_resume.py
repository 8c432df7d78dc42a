"""A controller dies in the middle of a run, and another goes on with it.

By hand: `make chaos`. With every change, `tests/cli/test_resume.py` does it without a cluster.
"""

from __future__ import annotations

import os
import signal

import psutil
import pytest

from orchestrator.supervisor.record import wait
from tests.conftest import Workplace
from tests.slow import SLOW, Slow, parents

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def slow(workplace: Workplace) -> Slow:
    made = Slow(workplace)
    up = workplace.run("up")
    assert up.returncode == 0, up.stderr
    return made


def test_a_run_goes_on_after_its_controller_was_killed(slow: Slow) -> None:
    launched = slow.begin("launch", *SLOW)
    worker = slow.until_step(12)
    os.kill(launched.pid, signal.SIGKILL)
    launched.wait()
    assert wait(lambda: not psutil.pid_exists(worker), 20), "the worker writes on"
    lost = slow.status()
    assert (lost["state"], lost["controller"]) == ("running", "gone")
    assert wait(lambda: not slow.running(), 60, tick=0.5), "MLflow says that it runs"
    before = parents(slow.shown())
    assert len(before) == 1

    done = slow.place.run("resume", lost["run"])
    assert done.returncode == 0, done.stdout + done.stderr
    run = slow.status()
    stages = {stage["stage"]: stage for stage in run["stages"]}
    assert (run["run"], run["state"], run["controller"]) == (lost["run"], "succeeded", None)
    assert [stages[name]["attempts"] for name in ("first", "second")] == [1, 2]
    assert stages["second"]["metrics"]["begun"] >= 10
    assert sum(line[0] == "first" for line in slow.lines()) == 1
    again = slow.place.run("resume", lost["run"])
    assert again.returncode == 0
    assert "has already ended: succeeded" in again.stdout
    assert slow.running() == []
    assert parents(slow.shown()) == before
    slow.place.run("down", "--yes")
    assert not list((slow.home / "services").glob("*.json"))
    left = [
        p.info for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(slow.place.folder)
    ]
    assert left == []
