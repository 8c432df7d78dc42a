"""From a fault to the first step after it: ours on another pool, Ray Train's on the same one.

Both train the same loop with two workers on the same warm cluster; rank 1 loses its link after a
checkpoint. Ray Train restarts its workers where they were; we move to another maker's pool, with
and without workers that stand by there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median

from tests.benchmarks import failing
from tests.benchmarks.services import Bench, bench
from tests.benchmarks.table import Row, compare

ROUNDS = 3
WORKERS = 2
ROOT = Path(__file__).parents[2]
OVERRIDES = ["pipeline=failover", "fleet=local", "jobs.packages=[tests]", f"jobs.code=[{ROOT}]"]
PIPELINE = """
name: failover
stages:
  train:
    job: tests.benchmarks.failing.train
    role: train
    params: {place: ""}
    needs: {workers: 2, devices: 1, cpus: 1}
"""


def rows() -> list[Row]:
    """Let each fail in turns."""
    with bench(OVERRIDES, failover=PIPELINE) as ready:
        rounds = [
            (
                _ours(ready, f"cold-{n}"),
                _ours(ready, f"warm-{n}", "+pipeline.stages.train.recovery.standby=true"),
                _ray_train(ready, f"ray-{n}"),
            )
            for n in range(ROUNDS)
        ]
    cold, warm, theirs = (median(column) for column in zip(*rounds, strict=True))
    name = "fault to first step on another pool, against Ray Train's on the same"
    return [
        compare(f"{name}, standby", warm, theirs, goal="ratio <= 0.5"),
        compare(f"{name}, no standby", cold, theirs),
    ]


def _ours(ready: Bench, name: str, *more: str) -> float:
    place = _place(ready, name)
    found: Sequence[str] = [*OVERRIDES, f"pipeline.stages.train.params.place={place}", *more]
    ready.launch(ready.request(found))
    return failing.seconds_lost(place)


def _ray_train(ready: Bench, name: str) -> float:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    place = _place(ready, name)
    TorchTrainer(
        failing.fit,
        train_loop_config={"place": str(place)},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=WORKERS,
            resources_per_worker={"CPU": 1},  # a GPU would make it look for CUDA
            label_selector={"pool": "nvidia"},
        ),
        run_config=RunConfig(
            name=name, storage_path=str(place), failure_config=FailureConfig(max_failures=1)
        ),
    ).fit()
    return failing.seconds_lost(place)


def _place(ready: Bench, name: str) -> Path:
    made = ready.folder / name
    made.mkdir()
    return made
