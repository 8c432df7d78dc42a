"""The training loop: steps, metrics, validation and checkpoints, from wherever it stands.

A step without a label, or whose loss or gradient is no number, is left out, counted
(`train/skipped`) and told; `patience` of the latter in a row are a divergence. So is one weight
that is no number: only a state of numbers alone is saved, or handed on. A checkpoint that is due
while steps go astray waits for one that does not.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch

from jobs.data.dataset import RowSource
from jobs.training import checkpoint
from jobs.training.loss import TokenLoss, mean_nll
from jobs.training.order import RowOrder, mix
from jobs.training.parallel.sharding import reshard
from jobs.training.parallel.snapshots import TrainingSnapshots, snapshots_of
from jobs.training.peak_memory import peak_gb
from jobs.training.profiling import StepProfiler
from jobs.training.schedule import Schedule
from jobs.training.step import Done, Stepper
from jobs.training.utilization import Speed
from orchestrator.job import JobContext

_VALIDATION_TOKENS = 2**16  # at once, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Every:
    """After how many steps to log, to validate and to checkpoint; 0 is never."""

    log: int
    validate: int
    checkpoint: int


@dataclass(slots=True)
class Window:
    """What was gathered since the last metric point. Tensors are not read before.

    Attributes:
        loss: The sum of those of the steps that were taken.
        steps: All of them.
        with_loss: Those that were not left out.
        tokens: Of all steps.
        since: When it began.
        norms: Of the gradient, by step, also where it is no number; of the newest alone where no
            step is logged.
        logged: Whether there are metric points but for the last step's.
    """

    loss: torch.Tensor | None = None
    steps: int = 0
    with_loss: int = 0
    tokens: int = 0
    since: float = field(default_factory=time.perf_counter)
    norms: dict[int, torch.Tensor] = field(default_factory=dict)
    logged: bool = True

    def add(self, step: int, done: Done) -> None:
        """Add a step."""
        self.tokens += done.tokens
        self.steps += 1
        if not done.skipped:
            self.loss = done.loss if self.loss is None else self.loss + done.loss
            self.with_loss += 1
        if done.learnt:
            if not self.logged:
                self.norms.clear()
            self.norms[step] = done.grad_norm

    def read_norms(self) -> dict[int, float]:
        """Return the norm of the gradient of each step."""
        if not self.norms:
            return {}
        return dict(zip(self.norms, torch.stack([*self.norms.values()]).tolist(), strict=True))


@dataclass(slots=True, kw_only=True)
class Trainer:
    """One worker's training loop. `loss` is what `stepper` trains, without its wrapping."""

    ctx: JobContext
    loss: TokenLoss
    stepper: Stepper
    schedule: Schedule
    order: RowOrder
    batch_size: int
    every: Every
    validation: RowSource
    state: checkpoint.State
    patience: int
    speed: Speed
    profiler: StepProfiler
    ahead: int = 0  # steps whose rows are read beforehand
    astray: int = 0  # steps in a row whose gradient was no number
    skip_logged: bool = False
    owed: bool = False  # a checkpoint, which is due or was while steps went astray
    last: dict[str, float] = field(default_factory=dict)
    snapshots: TrainingSnapshots = field(init=False)

    def __post_init__(self) -> None:
        """Make ready to copy the state."""
        self.snapshots = snapshots_of(self.loss.model, self.stepper.optimizer, self.stepper.group)

    def run(self) -> Mapping[str, float]:
        """Train until the last step of the schedule; return the newest value of each metric."""
        window = Window(logged=self.every.log > 0)
        steps = self.schedule.steps
        while self.state.step < steps:
            with self.profiler.step(self.state.step + 1, steps):
                done = self._step()
            window.since += self.profiler.overhead()
            step = self.state.step
            window.add(step, done)
            if _due(step, self.every.log) or step == steps or not done.finite:
                self._log(window)
                window = Window(logged=window.logged)
            self._check(done)
            pause = time.perf_counter()
            if _due(step, self.every.validate) or step == steps:
                self._validate()
            self.owed |= _due(step, self.every.checkpoint)
            if self.owed and step < steps and not self.astray:
                self._save()
            window.since += time.perf_counter() - pause
            self.ctx.progress(step, steps)
        self._prove()
        return self.last

    def _step(self) -> Done:
        step, position = self.state.step, self.state.position
        _seed(self.ctx.device, mix(self.ctx.seed, step, self.stepper.group.data_rank))
        rate = self.schedule.rate(step)
        for later in range(1, min(self.ahead, self.schedule.steps - 1 - step) + 1):
            self.stepper.expect(self._rows_at(position + later * self.batch_size))
        done = self.stepper.take(self._rows_at(position), rate)
        self.state = replace(
            self.state,
            step=step + 1,
            position=position + self.batch_size,
            seed=self.ctx.seed,
            rate=rate,
            skipped=self.state.skipped + done.skipped,
        )
        return done

    def _rows_at(self, position: int) -> torch.Tensor:
        return self.order.take(position, self.batch_size)

    def _log(self, window: Window) -> None:
        speed = window.tokens / (time.perf_counter() - window.since)
        values = {"train/lr": self.state.rate, "train/tokens_per_second": speed}
        values |= self.speed.figures(speed)
        values["train/memory_gb"] = peak_gb(self.stepper.group.device)
        for part, seconds in self.stepper.times.take().items():
            values[f"step/{part}_seconds"] = seconds / window.steps
        if window.loss is not None:
            values["train/loss"] = self.stepper.group.sum(window.loss).item() / window.with_loss
        for step, norm in window.read_norms().items():
            if step == self.state.step:
                values["train/grad_norm"] = norm
            else:
                self.ctx.metrics({"train/grad_norm": norm}, step=step)
        values |= self.stepper.balance.figures()
        if self.state.skipped:
            values["train/skipped"] = float(self.state.skipped)
        self._record(values)

    def _check(self, done: Done) -> None:
        """Tell of the first step that was left out; end where too many gradients are astray.

        Raises:
            FloatingPointError: Several in a row are no numbers.
        """
        step = self.state.step
        if done.skipped and not self.skip_logged:
            self.skip_logged = True
            what = "its loss or gradient is no number"
            why = what if done.learnt else "none of its rows has a label"
            self.ctx.log(f"step {step} is left out: {why}; train/skipped counts such steps")
        if done.learnt:
            self.astray = 0 if done.finite else self.astray + 1
        if self.astray >= max(1, self.patience):
            what = f"train/grad_norm is {done.grad_norm.item():g} at step {step}"
            row = f"loss or gradient were no number for {self.astray} steps in a row"
            raise FloatingPointError(f"{what}: {row}" if self.astray > 1 else what)

    def _prove(self) -> None:
        """Look whether the state is all numbers: what is not may be neither saved nor handed on.

        Raises:
            FloatingPointError: It is not.
        """
        group = self.stepper.group
        if not group.all(torch.tensor(self.snapshots.finite())):
            raise FloatingPointError(
                f"a weight, or what the optimizer holds, is no number after step "
                f"{self.state.step}: this state is not saved"
            )

    def _validate(self) -> None:
        if not len(self.validation):
            return
        loss = self.validation_loss()
        if loss is None:
            self.ctx.log("no row of the validation split has a label: it has no loss")
        else:
            self._record({"validation/loss": loss})

    def validation_loss(self) -> float | None:
        """Return the mean loss over the validation rows, `None` where they have no label.

        Every worker takes its share, in no larger micro-batches than it trains on.
        """
        group, rows = self.stepper.group, self.validation
        trained = self.batch_size * self.stepper.rows.width
        fits = trained // (group.data_size * self.stepper.accumulate * rows.width)
        most = max(1, min(fits, _VALIDATION_TOKENS // rows.width))
        self.loss.eval()
        mean = mean_nll(self.loss, rows, group.parts(torch.arange(len(rows)), most), group)
        self.loss.train()
        if group.mesh is not None:
            reshard(self.loss)
        return mean

    def _record(self, values: dict[str, float]) -> None:
        self.last.update(values)
        self.ctx.metrics(values, step=self.state.step)

    def _save(self) -> None:
        """Copy the state, and go on while the copy is written."""
        self.owed = False
        with self.stepper.times.part("checkpoint"):
            self._prove()
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
