"""One optimizer step over one global batch.

The loss is the mean over the tokens to be learnt in the *global* batch, whatever the number of
workers and micro-batches, so that neither changes what is learnt. A batch without a label teaches
nothing, and a gradient that is no number teaches wrongly: such a step leaves model and optimizer
as they are, in all workers alike. To know it, a step waits for the device once; the other values
come back as tensors and are read when they are logged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from jobs.data.dataset import RowBatch, RowSource
from jobs.data.tokens.prefetch import PrefetchedRows
from jobs.training.balance import Balance
from jobs.training.loss import TokenLoss, nll
from jobs.training.parallel.gathering import clipped
from jobs.training.parallel.sharding import TENSOR
from jobs.training.parallel.tensor import add_partial_gradients
from jobs.training.part_times import PartTimes
from jobs.training.process_group import ProcessGroup
from orchestrator.job import Hardware

Precision = str


@dataclass(frozen=True, slots=True)
class Done:
    """What a step gives.

    Attributes:
        loss: This worker's part of the loss.
        grad_norm: Norm of the gradient, before it was clipped.
        tokens: Tokens of the global batch.
        learnt: Those of them that were to be learnt; 0 is a step that was left out.
        finite: Whether loss and gradient are numbers in every worker; if not, it was left out.
    """

    loss: torch.Tensor
    grad_norm: torch.Tensor
    tokens: int
    learnt: int
    finite: bool = True

    @property
    def skipped(self) -> bool:
        """Whether the step has changed nothing."""
        return not (self.learnt and self.finite)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepper:
    """Takes optimizer steps. `wrapped` is the loss as the gang trains its model."""

    group: ProcessGroup
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    rows: RowSource
    pad: int
    accumulate: int
    clip: float
    balance: Balance
    times: PartTimes = field(default_factory=PartTimes)

    def expect(self, chosen: torch.Tensor) -> None:
        """Begin to read the rows of a later step, where they are read at all."""
        if isinstance(self.rows, PrefetchedRows):
            self.rows.expect(self._counted(chosen), self.group.share(chosen), self.pad)

    def take(self, chosen: torch.Tensor, rate: float) -> Done:
        """Take one step on the rows `chosen` of the global batch, at this learning rate."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        tokens, learnt = self._counts(chosen)
        if not learnt:  # every worker knows of the whole batch's labels, so that all leave it out
            nothing = torch.zeros((), device=self.group.device)
            return Done(nothing, nothing, tokens, learnt)
        self.balance.begin()
        loss = self._backward(chosen, learnt)
        norm = self._clipped()
        with self.times.part("communication"):
            finite = self.group.all(loss.isfinite() & norm.isfinite())
        if finite:
            with self.times.part("optimizer"):
                self.optimizer.step()
        self.balance.end(finite=finite)
        self.optimizer.zero_grad(set_to_none=True)
        return Done(loss, norm, tokens, learnt, finite)

    def _counted(self, chosen: torch.Tensor) -> torch.Tensor:
        """Return the rows of a batch that this worker counts: its own, where that reads them."""
        return self.group.share(chosen) if self.rows.reads_to_count else chosen

    def _counts(self, chosen: torch.Tensor) -> tuple[int, int]:
        """Return how many tokens the rows of a batch have, and how many labels."""
        with self.times.part("data"):
            counts = self.rows.counts(self._counted(chosen), self.pad)
        if not self.rows.reads_to_count:
            return counts
        with self.times.part("communication"):
            tokens, learnt = self.group.sum(
                torch.tensor(counts, device=self.group.device)
            ).tolist()
        return tokens, learnt

    def _clipped(self) -> torch.Tensor:
        """Have the norm of the gradient be `clip` at most; return what it was."""
        if self.group.mesh is not None:
            with self.times.part("communication"):
                add_partial_gradients(self.wrapped, self.group.mesh[TENSOR])
                return clipped(self.wrapped.parameters(), self.clip)
        with self.times.part("optimizer"):
            return nn.utils.clip_grad_norm_(self.wrapped.parameters(), self.clip)

    def _backward(self, chosen: torch.Tensor, learnt: int) -> torch.Tensor:
        """Leave the gradient of the batch in the model; return this worker's part of the loss."""
        mine = self.group.share(chosen)
        with self.times.part("data"):
            parts = self.rows.read(mine).split(self.accumulate) if len(mine) else []
        with self.times.part("communication"):
            real = self._inputs(parts) if self.balance.has_loss else 1
        loss = torch.zeros((), device=self.group.device)
        idle = self.group.idle_passes(len(chosen), self.accumulate, len(parts))
        for number in range(1, idle + 1):
            with self.times.part("data"):
                row = self.rows.read(chosen[:1])
            with self.group.without_sync(self.wrapped, last=number == idle + len(parts)):
                self._take_part(row)
        for number, part in enumerate(parts, start=1):
            with self.group.without_sync(self.wrapped, last=number == len(parts)):
                with self.times.part("forward"):
                    share, uneven = self._losses(part)
                    share = share / learnt
                with self.times.part("backward"):
                    torch.autograd.backward((share + uneven / real) * self.group.data_size)
            loss += share.detach()
        return loss

    def _take_part(self, row: RowBatch) -> None:
        """Add nothing to the gradient, of a worker that has no row: the others wait for it."""
        self.balance.watch(torch.zeros_like(self._real(row)))
        torch.autograd.backward(nll(self.wrapped, row, device=self.group.device) * 0.0)

    def _losses(self, part: RowBatch) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Return the summed loss of some rows, and that of an uneven load of experts, by token."""
        mask, device = self._real(part), self.group.device
        self.balance.watch(mask)
        loss = nll(self.wrapped, part, device=device)
        return loss, self.balance.loss() * mask.sum().item()

    def _inputs(self, parts: Sequence[RowBatch]) -> float:
        """Return how many inputs of the whole batch are no padding; `parts` are this worker's."""
        return self.group.totals(sum(self._real(part).sum().item() for part in parts))[0]

    def _real(self, part: RowBatch) -> torch.Tensor:
        """Return which inputs of some rows are no padding, [rows, width - 1]."""
        real = part.tokens != self.pad if part.real is None else part.real
        return real[:, :-1]


def data_parallel(loss: TokenLoss, rows: RowSource, group: ProcessGroup) -> nn.Module:
    """Return `loss` as the gang trains its model on `rows`."""
    if group.mesh is not None:
        return loss
    first = rows.read(torch.zeros(1, dtype=torch.int64))
    return group.wrap(loss, partial(nll, batch=first, device=group.device))


def wants_bf16(precision: Precision, hardware: Hardware) -> bool:
    """Say whether to train in mixed precision: `auto` is where a real accelerator has bf16."""
    if precision not in {"auto", "fp32", "bf16"}:
        raise ValueError(f"precision={precision!r} is none of 'auto', 'fp32', 'bf16'")
    if precision != "auto":
        return precision == "bf16"
    kind = torch.device(hardware.device).type
    if hardware.emulated or kind == "cpu":
        return False
    asks = getattr(torch.get_device_module(kind), "is_bf16_supported", None)
    return bool(asks()) if asks else True
