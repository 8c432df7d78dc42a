"""Parts are killed in the middle of a run, up to all of them, and the run goes on. By hand."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from orchestrator.supervisor.record import wait
from tests.conftest import Workplace
from tests.slow import SLOW, Slow, parents

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.timeout(900)]
LONG = (*SLOW, "pipeline.stages.second.params.to=300")


@pytest.fixture
def slow(tmp_path: Path, environment: dict[str, str]) -> Iterator[Slow]:
    """Return a workplace of one test, all of which is stopped after it."""
    place = Workplace(tmp_path, environment)
    yield Slow(place)
    place.run("down", "--yes")


def finishes(slow: Slow, run: str, *words: str) -> None:
    """Resume `run` and check that all is as it should be."""
    done = slow.place.run("resume", *words, run, seconds=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    found = slow.status()
    assert (found["run"], found["state"]) == (run, "succeeded")
    assert found["stages"][0]["attempts"] == 1
    assert found["stages"][1]["attempts"] == 2
    assert found["stages"][1]["metrics"]["begun"] >= 5
    leaves_nothing(slow)


def leaves_nothing(slow: Slow) -> None:
    """Check that MLflow has one tree of which nothing runs, and stop all."""
    slow.place.run("ui", "--no-browser", seconds=300)
    assert slow.running() == []
    assert len(parents(slow.shown())) == 1
    slow.place.run("down", "--yes")
    assert wait(lambda: slow.processes() == [], 20), slow.processes()


def head_of(slow: Slow) -> int:
    record = json.loads((slow.home / "services/ray.json").read_text())
    return int(record["children"]["head"]["pid"])


def kill_tree(pid: int) -> None:
    """Kill a process and all below it."""
    parent = psutil.Process(pid)
    for process in [parent, *parent.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):  # what it had started ends with it
            process.kill()


def test_a_run_goes_on_after_the_head_was_killed(slow: Slow) -> None:
    launched = slow.begin("launch", *LONG)
    slow.until_step(12)
    run = slow.status()["run"]
    kill_tree(head_of(slow))
    code = launched.wait(120)
    said = slow.printed("launch")
    assert code == 1, said
    assert f"orchestrator resume {run}" in said
    assert "Traceback" not in said
    assert slow.status()["controller"] == "gone"
    finishes(slow, run)


def test_a_run_goes_on_after_all_was_killed(slow: Slow) -> None:
    launched = slow.begin("launch", *LONG)
    slow.until_step(12)
    run = slow.status()["run"]
    while left := slow.processes():
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launched.poll()
    finishes(slow, run)


def test_a_detached_run_goes_on_after_its_controller_was_killed(slow: Slow) -> None:
    begun = slow.place.run("launch", "--detach", *LONG, seconds=300)
    assert begun.returncode == 0, begun.stdout + begun.stderr
    slow.until_step(12)
    run = slow.status()["run"]
    drivers = [
        p for p in psutil.process_iter(["cmdline"]) if "_drive" in (p.info["cmdline"] or [])
    ]
    mine = [p for p in drivers if run in p.info["cmdline"]]
    for process in mine:
        process.kill()
    assert mine
    assert wait(lambda: slow.status()["controller"] == "gone", 60)
    finishes(slow, run)


def test_a_lost_run_on_a_cluster_is_cancelled_and_told_so(slow: Slow) -> None:
    launched = slow.begin("launch", *LONG)
    slow.until_step(6)
    run = slow.status()["run"]
    launched.kill()
    launched.wait()
    done = slow.place.run("cancel", run)
    assert done.returncode == 0, done.stdout + done.stderr
    assert slow.status()["state"] == "cancelled"
    leaves_nothing(slow)


def test_a_run_is_taken_over_from_a_controller_that_lives(slow: Slow) -> None:
    launched = slow.begin("launch", *SLOW, "pipeline.stages.second.params.to=900")
    slow.until_step(12)
    run = slow.status()["run"]
    refused = slow.place.run("resume", run)
    assert refused.returncode == 1
    assert "has a controller since" in refused.stderr
    finishes(slow, run, "--take-over")
    assert launched.wait(60) == 1
    said = slow.printed("launch")
    assert f"another controller has taken run {run} over (epoch 2); this one stops" in said
    assert "Traceback" not in said
