"""The training loop: steps, metrics, validation and checkpoints, from wherever it stands."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from jobs.data.dataset import IGNORE, Rows
from jobs.training import checkpoint
from jobs.training.order import Order, mix
from jobs.training.schedule import Schedule
from jobs.training.step import Done, Stepper, nll
from orchestrator.job import JobContext

_VALIDATION_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """After how many steps to log, to validate and to checkpoint; 0 is never."""

    log: int
    validate: int
    checkpoint: int


@dataclass(slots=True)
class Window:
    """What was gathered since the last metric point. Tensors are not read before."""

    loss: torch.Tensor | None = None
    steps: int = 0
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)

    def add(self, done: Done) -> None:
        """Add a step."""
        self.loss = done.loss if self.loss is None else self.loss + done.loss
        self.steps += 1
        self.tokens += done.tokens


@dataclass(slots=True, kw_only=True)
class Loop:
    """One worker's training loop. `model` is what `stepper` trains, without its wrapping."""

    ctx: JobContext
    model: nn.Module
    stepper: Stepper
    schedule: Schedule
    order: Order
    batch_size: int
    every: Every
    validation: Rows
    state: checkpoint.State
    last: dict[str, float] = field(default_factory=dict)
    snapshots: checkpoint.Snapshots = field(init=False)

    def __post_init__(self) -> None:
        """Make ready to copy the state."""
        self.snapshots = checkpoint.Snapshots(
            self.model,
            self.stepper.optimizer,
            rank=self.ctx.rank,
            size=self.ctx.world_size,
        )

    def run(self) -> Mapping[str, float]:
        """Train until the last step of the schedule; return the newest value of each metric."""
        window = Window()
        steps = self.schedule.steps
        while self.state.step < steps:
            done = self._step()
            window.add(done)
            step = self.state.step
            if _due(step, self.every.log) or step == steps:
                self._log(window, done)
                window = Window()
            pause = time.perf_counter()
            if _due(step, self.every.validate) or step == steps:
                self._validate()
            if _due(step, self.every.checkpoint) and step < steps:
                self._save()
            window.since += time.perf_counter() - pause
            self.ctx.progress(step, steps)
        return self.last

    def _step(self) -> Done:
        step, position = self.state.step, self.state.position
        _seed(self.ctx.device, mix(self.ctx.seed, step, self.ctx.rank))
        rate = self.schedule.rate(step)
        done = self.stepper.take(self.order.take(position, self.batch_size), rate)
        self.state = checkpoint.State(
            step=step + 1, position=position + self.batch_size, seed=self.ctx.seed, rate=rate
        )
        return done

    def _log(self, window: Window, done: Done) -> None:
        if window.loss is None:
            return
        loss = self.stepper.gang.sum(window.loss).item() / window.steps
        seconds = time.perf_counter() - window.since
        self._record(
            {
                "train/loss": loss,
                "train/lr": self.state.rate,
                "train/grad_norm": done.grad_norm.item(),
                "train/tokens_per_second": window.tokens / seconds,
            }
        )

    def _validate(self) -> None:
        if len(self.validation):
            self._record({"validation/loss": self.validation_loss()})

    def validation_loss(self) -> float:
        """Return the mean loss over the validation rows; every worker takes its share."""
        gang = self.stepper.gang
        mine = gang.share(torch.arange(len(self.validation)))
        sums = torch.zeros(2, dtype=torch.float32, device=gang.device)
        self.model.eval()
        with torch.no_grad():
            for part in torch.split(mine, _VALIDATION_BATCH):
                sums[0] += nll(self.model, self.validation, part, device=gang.device)
                sums[1] += (self.validation.labels[part, 1:] != IGNORE).sum()
        self.model.train()
        total, count = gang.sum(sums).tolist()
        return float(total / max(count, 1.0))

    def _record(self, values: dict[str, float]) -> None:
        self.last.update(values)
        self.ctx.metrics(values, step=self.state.step)

    def _save(self) -> None:
        """Copy the state, and go on while the copy is written."""
        began = time.perf_counter()
        write = self.snapshots.take(self.state)
        seconds = time.perf_counter() - began
        self.ctx.save_checkpoint(self.state.step, write)
        self.ctx.metrics({"checkpoint/copy_seconds": seconds}, step=self.state.step)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _seed(device: str, number: int) -> None:
    """Seed what a step draws from; on a CPU without visiting every device that torch knows."""
    if device == "cpu":
        torch.default_generator.manual_seed(number)
    else:
        torch.manual_seed(number)
