"""Every end of a run has a way back: `resume`, `rerun`, `launch --continue`, by the command."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytestmark = pytest.mark.services  # it starts none, but makes the two halves equal

JOB = """\
import json
import time
from pathlib import Path

HERE = Path(__file__)


def train(ctx, *, steps=40):
    last = ctx.latest_checkpoint()
    begin = int((last.path / "step").read_text()) if last else 0
    ctx.log(f"from {begin}")
    for step in range(begin + 1, steps + 1):
        if step == 25 and not HERE.with_name("mended").exists():
            raise ValueError("row 25 is no number")
        ctx.metrics({"train/loss": 1.0 / step}, step=step)
        if step % 10 == 0:
            ctx.save_checkpoint(step, lambda to, step=step: (to / "step").write_text(str(step)))
            ctx.saved_checkpoint(step)
        time.sleep(0.01 if HERE.with_name("slow").exists() else 0)
    (ctx.output / "model").write_text("trained")
    return {"loss": 1.0 / steps}
"""
STAGE = "pipeline.stages.noop"
LAUNCH = (
    *("launch", "cluster=local", "tracking=none", "pipeline=noop", "jobs.packages=[mine]"),
    *("jobs.code=[.]", f"{STAGE}.job=mine.train"),
)


@pytest.fixture
def place(workplace):
    """A working folder with a job that fails at step 25 until it is mended."""
    (workplace.folder / "mine.py").write_text(JOB)
    for name in ("mended", "slow"):
        (workplace.folder / name).unlink(missing_ok=True)
    return workplace


def newest(place) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(place.run("status", "--json").stdout)[0]
    return found


def began(place, run: str) -> list[str]:
    """Return from which step each attempt of a run went on."""
    said = place.run("logs", run).stdout.splitlines()
    return [line.rpartition(" ")[2] for line in said if "[0] from" in line]


def test_a_failed_run_goes_on_from_its_checkpoint_once_it_is_mended(place):
    failed = place.run(
        *LAUNCH, f"+{STAGE}.limits.backoff=0.01", f"+{STAGE}.on_failure={{user_code: stop}}"
    )
    assert failed.returncode == 100, failed.stdout + failed.stderr
    run = newest(place)["run"]
    assert f"orchestrator resume {run}" in failed.stdout
    told = place.run("status", run).stdout
    assert "user_code" in told
    assert "ValueError: row 25 is no number" in told
    (place.folder / "mended").touch()
    done = place.run("resume", run)
    assert done.returncode == 0, done.stdout + done.stderr
    found = newest(place)
    assert (found["run"], found["state"]) == (run, "succeeded")
    assert began(place, run)[-1] == "20"
    assert [one["failure"] is None for one in found["attempts"]][-1] is True
    again = place.run("rerun", run, "noop")
    assert again.returncode == 0, again.stdout + again.stderr
    assert began(place, run)[-1] == "0", "it uses no checkpoint"
    place.run("resume", run, "--from", "noop")
    assert began(place, run)[-1] == "40", "it goes on from its last"


def test_a_run_that_is_out_of_time_pauses_after_a_checkpoint_and_goes_on_with_more(place):
    (place.folder / "mended").touch()
    (place.folder / "slow").touch()
    limit = f"{STAGE}.limits.timeout"
    paused = place.run(*LAUNCH, f"+{limit}=0.2")
    assert paused.returncode == 101, paused.stdout + paused.stderr
    found = newest(place)
    assert (found["state"], found["attempts"][0]["failure"]["kind"]) == ("paused", "drained")
    refused = place.run("resume", found["run"])
    assert refused.returncode == 2
    assert f"{limit}: stage 'noop' ran over its time limit of 0.2 s; raise it" in refused.stderr
    other = place.run("resume", found["run"], "seed=3")
    assert other.returncode == 2
    assert "seed: a run that goes on takes other limits, and nothing else" in other.stderr
    done = place.run("resume", found["run"], f"{limit}=60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(began(place, found["run"])[-1]) >= 10


def test_a_new_run_continues_an_earlier_one_that_did_the_same(place):
    place.run(*LAUNCH, "--no-cache", f"+{STAGE}.limits.attempts=1")
    earlier = newest(place)["run"]
    (place.folder / "mended").touch()
    done = place.run(*LAUNCH, "--no-cache", "--continue", earlier)
    assert done.returncode == 0, done.stdout + done.stderr
    assert began(place, newest(place)["run"]) == ["20"]
    place.run(*LAUNCH, "--no-cache", "--continue", earlier, f"+{STAGE}.params.steps=39")
    assert began(place, newest(place)["run"]) == ["0"], "its parameters are others"
    assert place.run(*LAUNCH, "--continue", "nope").returncode == 102
