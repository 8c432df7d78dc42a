"""`orchestrator down` amid a launch: it names the run, and the run ends at once, to be resumed.

By hand: `make chaos`. With every change, `tests/cli/test_down.py` does it without a cluster.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Workplace
from tests.slow import SLOW, Slow

pytestmark = [pytest.mark.chaos, pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def slow(tmp_path: Path, environment: dict[str, str]) -> Iterator[Slow]:
    made = Slow(Workplace(tmp_path, environment))
    yield made
    made.place.run("down", "--yes")


def test_a_run_that_is_in_progress_is_named_and_leaves_at_once_when_the_user_says_so(
    slow: Slow,
) -> None:
    launched = slow.begin("launch", *SLOW, "pipeline.stages.second.params.to=2000")
    slow.until_step(7)
    run = slow.status()["run"]

    refused = slow.place.run("down")
    assert refused.returncode == 1
    assert f"in progress: {run}" in refused.stderr
    assert "orchestrator down --yes" in refused.stderr
    assert launched.poll() is None

    began = time.monotonic()
    done = slow.place.run("down", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"orchestrator resume {run}" in done.stdout
    assert launched.wait(60.0) == 1
    assert time.monotonic() - began < 60.0
    said = slow.printed("launch")
    assert f"when it is up, run {run} goes on: orchestrator resume {run}" in said
    assert "node_lost" not in said
    assert "GCS" not in said
    assert "Traceback" not in said
    found = slow.status()
    assert (found["state"], found["controller"]) == ("running", "gone")
    assert slow.processes() == []

    again = slow.place.run("cancel", run)
    assert again.returncode == 0, again.stdout + again.stderr
    assert slow.status()["state"] == "cancelled"
