"""Training that fails once: two workers average gradients, save a checkpoint, and lose a link.

The same loop runs as a job of ours and as the train function of Ray Train. Two files tell when the
fault was and when the first step after it was done, by the clock of the machine.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

from orchestrator.job import JobContext

STEPS_BEFORE = 60
STEPS_AFTER = 3
PAUSE = 0.25  # what a step takes beside its arithmetic, so that a standby gang has time to come up
WIDTH = 256
MESSAGE = "HCCS LINK ERROR"
FAULT, FIRST = "fault", "first"


def train(ctx: JobContext, *, place: str) -> None:
    """Train as a job of ours; the first attempt fails."""
    saved = ctx.latest_checkpoint()
    resumed = saved.step if saved else None

    def save(step: int, write: Callable[[Path], None]) -> None:
        ctx.save_checkpoint(step, write)

    def tell(step: int, loss: float) -> None:
        ctx.metrics({"train/loss": loss}, step=step)

    loop(ctx.rank, resumed, Path(place), save, tell)


def fit(config: dict[str, str]) -> None:
    """Train as a worker of Ray Train; what is before the restart fails."""
    import tempfile

    import torch
    from ray import train as ray_train

    torch.set_num_threads(1)
    saved = ray_train.get_checkpoint()
    resumed = STEPS_BEFORE if saved else None

    def save(step: int, write: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            if ray_train.get_context().get_world_rank() == 0:
                write(Path(folder))
                checkpoint = ray_train.Checkpoint.from_directory(folder)
                ray_train.report({"step": step}, checkpoint=checkpoint)
            else:
                ray_train.report({"step": step})

    def tell(step: int, loss: float) -> None:
        """Tell nobody: a report at each step would only slow it down."""

    rank = ray_train.get_context().get_world_rank()
    loop(rank, resumed, Path(config["place"]), save, tell)


def loop(
    rank: int,
    resumed: int | None,
    place: Path,
    save: Callable[[int, Callable[[Path], None]], None],
    tell: Callable[[int, float], None],
) -> None:
    """Train; save once, then lose the link in rank 1, unless this goes on from a checkpoint."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    model = DistributedDataParallel(torch.nn.Linear(WIDTH, WIDTH))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    start = resumed or 0
    end = start + STEPS_AFTER if resumed else STEPS_BEFORE + 1
    for step in range(start + 1, end + 1):
        loss = model(torch.ones(8, WIDTH)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        tell(step, loss.item())
        if resumed and step == start + 1 and rank == 0:
            _note(place / FIRST)
        if step == STEPS_BEFORE:
            save(step, lambda folder: torch.save(model.module.state_dict(), folder / "model"))
        if step > STEPS_BEFORE and not resumed and rank == 1:
            _note(place / FAULT)
            raise RuntimeError(MESSAGE)
        threading.Event().wait(PAUSE)


def seconds_lost(place: Path) -> float:
    """Return seconds from the fault to the end of the first step after it."""
    return float((place / FIRST).read_text()) - float((place / FAULT).read_text())


def _note(path: Path) -> None:
    path.write_text(repr(time.time()))  # noqa: TID251 - of workers in different processes
