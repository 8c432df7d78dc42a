"""From launch to the first training step of two workers, against bare Ray Train.

Both train the same job on the same data on the same warm cluster, in processes of their own. Ours
begins with composing the config; its data stage is reused. A time stamp is that of the point which
the job records after its first step.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median

from orchestrator import wiring
from orchestrator.messages import Message, Points
from tests.benchmarks.services import Bench, bench
from tests.benchmarks.table import Row, compare

WORKERS = 2
ROUNDS = 3
OVERRIDES = ["pipeline=train", "fleet=local"]
PARAMS = {"batch_size": 16, "log_every": 1, "validate_every": 0, "checkpoint_every": 0}
PIPELINE = f"""
name: train
stages:
  data:
    job: jobs.data.arithmetic.prepare
    role: prepare
    params: {{draws: 500}}
    needs: {{workers: 1, devices: 0, cpus: 1}}
  pretrain:
    job: jobs.pretraining.pretrain
    role: train
    inputs: {{data: data}}
    params: {{steps: 1, {", ".join(f"{key}: {value}" for key, value in PARAMS.items())}}}
    needs: {{workers: {WORKERS}, devices: 1, cpus: 1}}
"""


def rows() -> list[Row]:
    """Launch and fit in turns; every launch has another number of steps, so none is reused."""
    with bench(OVERRIDES, train=PIPELINE) as ready:
        _ours(ready, steps=1)
        rounds = [(_ours(ready, steps=2 + n), _ray_train(ready, n)) for n in range(ROUNDS)]
    ours, theirs = (median(column) for column in zip(*rounds, strict=True))
    name = f"launch to first step of {WORKERS} workers, against bare Ray Train"
    return [compare(name, ours, theirs, goal="ratio <= 0.7")]


def _ours(ready: Bench, *, steps: int) -> float:
    """Return seconds from composing to the first step."""
    first: list[float] = []

    def observe(stage: str, attempt: int, message: Message) -> None:
        if isinstance(message, Points):
            first.append(message.at)

    began = wiring.clock().now()
    order = ready.request(
        [*OVERRIDES, f"pipeline.stages.pretrain.params.steps={steps}"], reuse=True
    )
    ready.launch(order, observe)
    return first[0] - began


# --- Ray Train --------------------------------------------------------------------------------


def _ray_train(ready: Bench, number: int) -> float:
    """Return seconds from making a trainer to the first step."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    place = ready.folder / f"ray-train-{number}"
    place.mkdir()
    data = _data(ready)
    began = wiring.clock().now()
    TorchTrainer(
        _fit,
        train_loop_config={"data": str(data), "place": str(place), "params": PARAMS},
        torch_config=TorchConfig(backend="gloo"),
        scaling_config=ScalingConfig(
            num_workers=WORKERS,
            resources_per_worker={"CPU": 1},  # a GPU would make it look for CUDA
            label_selector={"pool": "nvidia"},
        ),
        run_config=RunConfig(name="bare", storage_path=str(place)),
    ).fit()
    return float((place / "first").read_text()) - began


def _data(ready: Bench) -> Path:
    """Return the folder of the data set that our first launch made."""
    return next(ready.folder.glob("home/artifacts/**/dataset.json")).parent


def _fit(config: Mapping[str, object]) -> None:
    """Train one step as a worker of Ray Train."""
    import torch
    from ray import train

    from jobs.pretraining import pretrain
    from tests.benchmarks.bare_context import BareContext

    torch.set_num_threads(1)
    rank = train.get_context().get_world_rank()
    ctx = BareContext(
        inputs={"data": Path(str(config["data"]))},
        output=Path(str(config["place"])) / f"output-{rank}",
        rank=rank,
        world_size=WORKERS,
    )
    pretrain(ctx, steps=1, **config["params"])  # type: ignore[arg-type]
    if rank == 0:
        (Path(str(config["place"])) / "first").write_text(repr(ctx.told[0]))
