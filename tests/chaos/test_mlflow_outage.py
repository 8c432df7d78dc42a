"""MLflow ten times away while a job steps: the job doesn't notice, and MLflow has it all after.

By hand: `pytest -m chaos -s tests/chaos/test_mlflow_outage.py`; CHAOS_OUTAGES and CHAOS_STEPS
change the figures.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from orchestrator import supervisor, wiring
from orchestrator.adapters import mlflow_server
from orchestrator.core.runs.fold import fold
from tests.adapters.mlflow_tracker.seen import Seen
from tests.benchmarks.services import Bench, bench

OUTAGES = int(os.environ.get("CHAOS_OUTAGES", "10"))  # noqa: TID251 - a test's own
STEPS = int(os.environ.get("CHAOS_STEPS", "2500"))  # noqa: TID251 - as above
KEYS = ("loss", "lr", "grad_norm", "tokens")
CALM_STEPS = min(STEPS, 600)
STEP_SECONDS = 0.2
KINDS = ("SIGKILL", "SIGTERM", "SIGSTOP")
AWAY_SECONDS = {"SIGKILL": 3.0, "SIGTERM": 3.0, "SIGSTOP": 13.0}  # longer than a request waits
UP_SECONDS = 5.0
ROOT = Path(__file__).parents[2]
PIPELINE = f"""
name: stepping
stages:
  step:
    job: tests.chaos.stepping.step
    role: train
    params: {{steps: {STEPS}, seconds: {STEP_SECONDS}}}
    needs: {{workers: 1, devices: 1, cpus: 1}}
"""
OVERRIDES = ["pipeline=stepping", "fleet=local", "jobs.packages=[tests]", f"jobs.code=[{ROOT}]"]


class Outages:
    """A thread that takes the MLflow server of `home` away and brings it back, again and again."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.happened: list[str] = []
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._enough.set()
        self._thread.join()

    def _work(self) -> None:
        while len(self.happened) < OUTAGES and not self._enough.wait(UP_SECONDS):
            kind = KINDS[len(self.happened) % len(KINDS)]
            self._take_away(kind)
            time.sleep(AWAY_SECONDS[kind])  # noqa: TID251 - a server has no clock of ours
            self._bring_back(kind)
            self.happened.append(kind)

    def _take_away(self, kind: str) -> None:
        if kind == "SIGTERM":
            assert mlflow_server.down(self._home)
        else:
            os.killpg(self._group(), signal.Signals[kind])

    def _bring_back(self, kind: str) -> None:
        if kind == "SIGSTOP":
            os.killpg(self._group(), signal.SIGCONT)
        else:
            mlflow_server.up(self._home)

    def _group(self) -> int:
        found = supervisor.find(self._home, mlflow_server.SERVICE)
        assert found is not None
        return os.getpgid(found.processes["server"])


def _run(ready: Bench, steps: int) -> tuple[str, Mapping[str, float]]:
    """Run the pipeline; return the run's name and what the job measured of itself."""
    request = ready.request([*OVERRIDES, f"pipeline.stages.step.params.steps={steps}"])
    ready.launch(request)
    name = request.header.run
    stored = wiring.database(request.home).events(name)
    run = fold(request.header, ((item.at, item.event) for item in stored))
    return name, run.stages["step"].metrics


def _twice(curves: Mapping[str, list[int]]) -> int:
    return sum(len(steps) - len(set(steps)) for steps in curves.values())


def _table(**runs: Mapping[str, float]) -> str:
    lines = ["step time        p50       p99       worst"]
    for label, figures in runs.items():
        row = "  ".join(f"{figures[key]:6.2f} ms" for key in ("p50_ms", "p99_ms", "worst_ms"))
        lines.append(f"{label:14}  {row}")
    return "\n".join(lines)


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore")  # Ray's, in this process
def test_mlflow_outages_are_not_noticed_by_the_job_and_lose_nothing() -> None:
    with bench(OVERRIDES, stepping=PIPELINE) as ready:
        _, before = _run(ready, CALM_STEPS)
        with Outages(ready.folder / "home") as outages:
            name, during = _run(ready, STEPS)
        _, after = _run(ready, CALM_STEPS)
        experiment = ready.request(OVERRIDES).settings.tracking.experiment
        found = Seen(mlflow_server.up(ready.folder / "home"), experiment)
        curves = {key: found.curve(f"{name}/step/1", key) for key in KEYS}
        on_run = {key: found.curve(name, f"step/{key}") for key in KEYS}
        status = found.runs[name].info.status
        shown = sorted(key for key in found.runs if key.startswith(name))

    lost = STEPS * len(KEYS) - sum(len(set(steps)) for steps in curves.values())
    twice = _twice(curves) + _twice(on_run)
    ratio = during["p99_ms"] / max(before["p99_ms"], after["p99_ms"])
    print(f"\n{len(outages.happened)} outages: {', '.join(outages.happened)}")
    print(f"{STEPS * len(KEYS)} points told, {lost} lost, {twice} twice")
    print(_table(before=before, with_outages=during, after=after))
    print(f"p99 with outages / with MLflow up: {ratio:.3f} (goal <= 1.05)")
    assert len(outages.happened) == OUTAGES
    assert (lost, twice) == (0, 0)
    assert (status, shown) == ("FINISHED", [name, f"{name}/step/1"])
    assert ratio <= 1.05
