"""A pipeline that takes its time, to break it off in the middle; and what became of it."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import psutil

from orchestrator.supervisor.record import wait
from tests.conftest import Workplace

# The first stage is over at once; the second goes on from its checkpoints.
PIPELINE = """\
name: slow
stages:
  first: {job: slow.first, role: prepare}
  second: {job: slow.second, role: train, inputs: {made: first}, params: {to: 60}}
"""
JOBS = """\
import os
import time
from functools import partial
from pathlib import Path

TRACE = Path("HERE/trace")  # not beside the code, which travels


def first(ctx):
    (ctx.output / "made").write_text("made")
    with TRACE.open("a") as trace:
        print("first", os.getpid(), file=trace)
    return {}


def second(ctx, *, to):
    found = ctx.latest_checkpoint()
    begun = int((found.path / "step").read_text()) if found else 0
    for step in range(begun + 1, to + 1):
        time.sleep(0.1)
        with TRACE.open("a") as trace:
            print("second", os.getpid(), step, file=trace)
        ctx.metrics({"loss": 1 / step}, step=step)
        if step % 5 == 0:
            ctx.save_checkpoint(step, partial(_write, step))
    (ctx.output / "step").write_text(str(to))
    return {"begun": begun}


def _write(step, folder):
    (folder / "step").write_text(str(step))
"""
SLOW = ("--config-dir", "conf", "pipeline=slow", "jobs.packages=[slow]", "jobs.code=[.]")


class Slow:
    """A workplace with the slow pipeline."""

    def __init__(self, workplace: Workplace) -> None:
        self.place = workplace
        self.trace = workplace.folder / "trace"
        (workplace.folder / "conf/pipeline").mkdir(parents=True)
        (workplace.folder / "conf/pipeline/slow.yaml").write_text(PIPELINE)
        (workplace.folder / "slow.py").write_text(JOBS.replace("HERE", str(workplace.folder)))

    def begin(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command that goes on, with what it prints in a file."""
        with (self.place.folder / f"{words[0]}.out").open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "orchestrator", *words],
                cwd=self.place.folder,
                env=self.place.environment,
                stdout=out,
                stderr=out,
            )

    def printed(self, verb: str) -> str:
        return (self.place.folder / f"{verb}.out").read_text()

    def status(self) -> dict[str, Any]:
        """Return the newest run."""
        runs: list[dict[str, Any]] = json.loads(self.place.run("status", "--json").stdout)
        return runs[0]

    def lines(self) -> list[list[str]]:
        """Return what the jobs have noted: stage, process, step."""
        return [line.split() for line in self.trace.read_text().splitlines()]

    def until_step(self, step: int, seconds: float = 240.0) -> int:
        """Wait until a worker is beyond `step`; return its process."""

        def beyond() -> bool:
            return self.trace.exists() and any(
                len(line) == 3 and int(line[2]) > step for line in self.lines()
            )

        assert wait(beyond, seconds, tick=0.1), self.printed("launch")
        return int(self.lines()[-1][1])

    def shown(self) -> list[dict[str, Any]]:
        """Return all MLflow runs of the home, by its own server."""
        record = json.loads((self.home / "services/mlflow.json").read_text())
        url = f"{record['info']['uri']}/api/2.0/mlflow/runs/search"
        body = json.dumps({"experiment_ids": ["1"], "max_results": 100}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - loopback
            found: list[dict[str, Any]] = json.load(answer)["runs"]
        return found

    def running(self) -> list[str]:
        return [run["info"]["run_name"] for run in self.shown() if is_running(run)]

    def processes(self) -> list[int]:
        """Return all processes that were started here, by the folder in which they work."""
        here = str(self.place.folder)
        return [p.pid for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == here]

    @property
    def home(self) -> Path:
        return Path(self.place.folder / ".orchestrator")


def is_running(run: dict[str, Any]) -> bool:
    return bool(run["info"]["status"] == "RUNNING")


def parents(runs: list[dict[str, Any]]) -> list[str]:
    """Return the ids of runs that are no children."""
    tags = {run["info"]["run_id"]: {tag["key"] for tag in run["data"]["tags"]} for run in runs}
    return [run for run, keys in tags.items() if "mlflow.parentRunId" not in keys]
