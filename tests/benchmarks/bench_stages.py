"""What a stage costs that does nothing: ours, by hand on the same services, and in Metaflow.

By hand means: a chain of Ray tasks on the same pool that run the same job, each shown as a nested
MLflow run. Metaflow runs fewer steps, because each is a process; its start is left out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from jobs.noop import noop
from tests.benchmarks.services import Bench, bench
from tests.benchmarks.table import Row, compare, seconds

STAGES = 50
ROUNDS = 3
SHORT, LONG = 2, 8
OVERRIDES = ["pipeline=chain", "fleet=local"]


def rows() -> list[Row]:
    """Run the chains in turns on warm services, then the steps of Metaflow."""
    with bench(OVERRIDES, chain=_chain(STAGES)) as ready:
        _ours(ready), _by_hand(ready, "warm")
        rounds = [(_ours(ready), _by_hand(ready, f"{number}")) for number in range(ROUNDS)]
        metaflow = _metaflow(ready.folder)
    ours, theirs = (median(column) for column in zip(*rounds, strict=True))
    name = f"a stage of {STAGES} that do nothing, against"
    by_hand = f"{name} Ray tasks and MLflow runs by hand"
    return [
        compare(by_hand, ours * 1e3, theirs * 1e3, unit="ms", goal="ratio <= 1.5"),
        compare(f"{name} Metaflow", ours * 1e3, metaflow * 1e3, unit="ms", goal="ratio < 1"),
    ]


def _chain(stages: int) -> str:
    lines = ["name: chain", "stages:"]
    for number in range(stages):
        after = f"after: [s{number - 1}], " if number else ""
        needs = "needs: {workers: 1, devices: 0, cpus: 1}"
        lines.append(f"  s{number}: {{job: jobs.noop.noop, role: prepare, {after}{needs}}}")
    return "\n".join(lines)


def _ours(ready: Bench) -> float:
    """Return seconds a stage of a planned run, up to the last word in MLflow."""
    order = ready.request(OVERRIDES)
    began = perf_counter()
    ready.launch(order)
    return (perf_counter() - began) / STAGES


# --- by hand ----------------------------------------------------------------------------------


class _Context:
    """As much of a context as the job asks for."""

    rank, world_size, stage = 0, 1, "by hand"

    class hardware:  # noqa: N801 - as the job calls it
        pool = "nvidia"

    def __init__(self, output: Path) -> None:
        """Write to `output`."""
        self.output = output


def _task(folder: Path, stage: int, _before: object) -> None:
    place = folder / str(stage)
    place.mkdir(parents=True)
    noop(_Context(place))  # type: ignore[arg-type] # as much of it as the job asks for


def _by_hand(ready: Bench, name: str) -> float:
    """Return seconds a stage of what somebody would write who has no orchestrator."""
    import ray
    from mlflow.tracking import MlflowClient

    began = perf_counter()
    client = MlflowClient(ready.tracking)
    task = ray.remote(max_retries=0)(_task)
    parent = client.create_run("0", run_name=f"by hand {name}").info.run_id
    before: object = None
    for stage in range(STAGES):
        tags = {
            "mlflow.parentRunId": parent,
            "stage": f"s{stage}",
            "role": "prepare",
            "pool": "nvidia",
            "job": "jobs.noop.noop",
        }
        run = client.create_run("0", run_name=f"s{stage}", tags=tags).info.run_id
        placed = task.options(num_cpus=1, label_selector={"pool": "nvidia"})
        before = placed.remote(ready.folder / "by-hand" / name, stage, before)
        ray.get(before)
        client.set_terminated(run, "FINISHED")
    client.set_terminated(parent, "FINISHED")
    return (perf_counter() - began) / STAGES


# --- Metaflow ---------------------------------------------------------------------------------


def _metaflow(folder: Path) -> float:
    """Return seconds a step of Metaflow: what the steps of a longer flow add to a shorter one."""
    short, long = (seconds(lambda n=n: _flow(folder, n), times=2) for n in (SHORT, LONG))
    return (long - short) / (LONG - SHORT)


def _flow(folder: Path, steps: int) -> None:
    at = folder / f"flow_{steps}"
    at.mkdir(exist_ok=True)
    (at / "flow.py").write_text(_source(steps))
    known = {**os.environ, "METAFLOW_USER": "bench", "METAFLOW_HOME": str(at)}  # noqa: TID251 - a command's
    words = [sys.executable, "flow.py", "--quiet", "--metadata", "local", "run"]
    subprocess.run(words, cwd=at, env=known, check=True, capture_output=True, timeout=120)


def _source(steps: int) -> str:
    names = ["start", *(f"s{number}" for number in range(steps - 2)), "end"]
    lines = ["from metaflow import FlowSpec, step", "class Chain(FlowSpec):"]
    for name, following in zip(names, [*names[1:], ""], strict=True):
        body = f"self.next(self.{following})" if following else "pass"
        lines += ["    @step", f"    def {name}(self):", f"        {body}"]
    return "\n".join([*lines, "if __name__ == '__main__':", "    Chain()", ""])
