"""A short training of the pipeline's own model, as a gang and as the host do it.

The parts are those of the training job itself: model, gang, step, optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from jobs.data.dataset import Rows
from jobs.qualification.reduced import fresh
from jobs.training.balance import Balance
from jobs.training.loss import TokenLoss
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.order import mix
from jobs.training.process_group import ProcessGroup
from jobs.training.step import Stepper, data_parallel

RATE, BATCH, WIDTH = 2e-3, 8, 24
_ROWS = 64


@dataclass(frozen=True, slots=True)
class ShortTraining:
    """What is trained, for how many steps, from which seed."""

    architecture: str
    fields: Mapping[str, object]
    steps: int
    seed: int


@dataclass(frozen=True, slots=True)
class Trained:
    """A training run: its losses, the model and what its optimizer holds."""

    losses: list[float]
    model: nn.Module
    optimizer: torch.optim.Optimizer


def rows_of(seed: int) -> Rows:
    """Return rows with something to learn: each token follows from the one before."""
    generator = torch.Generator().manual_seed(mix(seed, 1))
    starts = torch.randint(3, 256, (_ROWS, 1), generator=generator)
    tokens = ((starts + 5 * torch.arange(WIDTH)) % 253 + 3).to(torch.int32)
    return Rows(tokens, tokens.clone())


def train(
    recipe: ShortTraining, group: ProcessGroup, *, bf16: bool, sign: Callable[[], None]
) -> Trained:
    """Train from fresh weights; the loss of every step is that of the whole batch.

    `sign` is called before each step. Every worker of a large gang has a row: the batch is the
    same few rows several times, which leaves its mean gradient what it is.
    """
    rows, seed = rows_of(recipe.seed), recipe.seed
    model = fresh(recipe.architecture, recipe.fields, seed).to(group.device).train()
    optimizer = optimizer_for(model, OptimizerConfig(beta2=0.98), rate=RATE, device=group.device)
    stepper = Stepper(
        group=group,
        wrapped=data_parallel(TokenLoss(model, bf16=bf16), rows, group),
        optimizer=optimizer,
        rows=rows,
        pad=0,
        accumulate=1,
        clip=1.0,
        balance=Balance(model, group, rate=1e-3),
    )
    losses, times = [], -(-group.size // BATCH)
    for step in range(recipe.steps):
        sign()
        torch.manual_seed(mix(seed, step))
        chosen = torch.arange(step * BATCH, (step + 1) * BATCH) % _ROWS
        losses.append(group.sum(stepper.take(chosen.repeat(times), RATE).loss).item())
    return Trained(losses, model, optimizer)
