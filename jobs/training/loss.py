"""The forward pass of training, validation, evaluation and the reference, and its loss.

The scores of a real vocabulary outgrow all else: 64 rows of 4096 tokens over 128,000 are 137 GB in
float32. So the loss is summed over parts of the tokens, whose scores are made anew in the backward
pass, wherever a model's scores are nothing but what its head makes of the last layer.
`torch.nn.functional.linear_cross_entropy` is not taken: it knows no autocast, and of numbers in
bfloat16 gives the loss in bfloat16 too (38144 for 38288).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from jobs.data.dataset import IGNORE, RowBatch, RowSource
from jobs.training.process_group import ProcessGroup

MOST_SCORES = 2**26  # at once: 256 MiB in float32
_RAMP = 50.0  # scores that no cap, scale or bias leaves as they are


class TokenLoss(nn.Module):
    """A causal language model whose output is the loss of the labels, summed."""

    def __init__(self, model: nn.Module, *, bf16: bool = False, most: int = MOST_SCORES) -> None:
        """Take `model`; with `bf16` its products are done in bfloat16.

        At most so many scores are held at once, where the model allows it.
        """
        super().__init__()
        self.model: Any = model
        self.bf16 = bf16
        self._most = most

    def forward(
        self,
        tokens: Tensor,
        labels: Tensor,
        positions: Tensor | None = None,
        *,
        by_row: bool = False,
    ) -> Tensor:
        """Return the summed negative log-likelihood of `labels`, nats; all are [rows, width].

        Label i belongs to the token after token i; `IGNORE` is none. Positions that begin anew
        within a row are those of several documents. With `by_row` it is that of each row [rows].
        """
        sum_up = _each if by_row else _summed
        head = _head_of(self.model)
        if head is None or tokens.numel() * head.out_features <= self._most or not self._splits:
            scores = forward(self.model, tokens, positions, bf16=self.bf16)
            losses = sum_up(scores.flatten(0, 1), labels.flatten())
            return losses.reshape(labels.shape).sum(1) if by_row else losses

        def part(last: Tensor, wanted: Tensor) -> Tensor:
            return sum_up(head(last), wanted)

        with autocast(tokens.device, bf16=self.bf16):
            inputs = _inputs(tokens, positions)
            last = self.model.base_model(**inputs, use_cache=False)[0].flatten(0, 1)
            size = max(1, self._most // head.out_features)
            pairs = zip(torch.split(last, size), torch.split(labels.flatten(), size), strict=True)
            parts = [checkpoint(part, *pair, use_reentrant=False) for pair in pairs]
        return (
            torch.cat(parts).reshape(labels.shape).sum(1) if by_row else torch.stack(parts).sum()
        )

    def settle(self) -> None:
        """Find out how the loss is summed: all workers that share a model do so at once."""
        bool(self._splits)

    def keeps_apart(self) -> bool:
        """Whether documents of a row that positions tell apart do not see each other."""
        device = self.model.get_input_embeddings().weight.device
        return keeps_apart(self.model, device, bf16=self.bf16)

    @cached_property
    def _splits(self) -> bool:
        return _ends_in_head(self.model, bf16=self.bf16)


def forward(
    model: Any,  # noqa: ANN401 - a transformers model
    tokens: Tensor,
    positions: Tensor | None = None,
    *,
    bf16: bool = False,
) -> Tensor:
    """Return the scores [rows, width, vocabulary] after each of `tokens` [rows, width]."""
    with autocast(tokens.device, bf16=bf16):
        scores: Tensor = model(**_inputs(tokens, positions), use_cache=False).logits
    return scores


def nll(loss: nn.Module, batch: RowBatch, *, device: torch.device, by_row: bool = False) -> Tensor:
    """Return the summed loss of some rows, by a `TokenLoss` or one that a gang has wrapped.

    With `by_row`, of a `TokenLoss`, it is that of each row [rows].
    """
    tokens = batch.tokens[:, :-1].to(device, torch.int64)
    labels = batch.labels[:, 1:].to(device, torch.int64)
    more = {"by_row": True} if by_row else {}
    if batch.positions is None:
        total: Tensor = loss(tokens, labels, **more)
        return total
    places = batch.positions[:, :-1].to(device, torch.int64)
    apart: Tensor = loss(tokens, labels, places, **more)
    return apart


@torch.no_grad()
def keeps_apart(model: Any, device: torch.device, *, bf16: bool = False) -> bool:  # noqa: ANN401 - a transformers model
    """Whether documents of a row that positions tell apart do not see each other.

    It is tried: what comes after another document gets the scores that it gets alone.
    """
    alone = torch.tensor([[1, 2, 3, 1], [2, 1, 1, 3]], device=device)
    before = torch.tensor([[3, 1, 2, 2], [1, 3, 3, 2]], device=device)
    places = torch.arange(4, device=device).repeat(2, 2)
    scores = partial(forward, model, bf16=bf16)
    training = model.training
    model.eval()
    try:
        after = scores(torch.cat((before, alone), 1), places)[:, 4:]
        other = scores(torch.cat((before.flip(1), alone), 1), places)[:, 4:]
        first = scores(alone)
    except TypeError:  # it takes no positions
        return False
    finally:
        model.train(training)
    return torch.equal(after, other) and torch.allclose(after, first, rtol=1e-2, atol=1e-3)


@torch.no_grad()
def mean_nll(
    loss: TokenLoss, rows: RowSource, parts: Sequence[Tensor], group: ProcessGroup
) -> float | None:
    """Return the mean loss of the labels of some rows, `None` where they have none.

    `parts` are those of this worker: it may have none, and every worker must call it. An empty one
    stands for a pass that others take: this worker takes it with them, and counts nothing.
    """
    total, count = 0.0, 0
    for part in parts:
        if not len(part):
            nll(loss, rows.read(torch.zeros(1, dtype=torch.int64)), device=group.device)
            continue
        batch = rows.read(part)
        total += nll(loss, batch, device=group.device).item()
        count += int((batch.labels[:, 1:] != IGNORE).sum())
    total, learnt = group.totals(total, count)
    return total / learnt if learnt else None


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[Any]:
    """Return a context in which matrix products are done in bfloat16, if so wished."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def _inputs(tokens: Tensor, positions: Tensor | None) -> dict[str, Tensor]:
    if positions is None:  # a few models take none
        return {"input_ids": tokens}
    return {"input_ids": tokens, "position_ids": positions}


def _summed(scores: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(scores.float(), labels, ignore_index=IGNORE, reduction="sum")


def _each(scores: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(scores.float(), labels, ignore_index=IGNORE, reduction="none")


def _head_of(model: Any) -> nn.Linear | None:  # noqa: ANN401 - any model
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return head if type(head) is nn.Linear else None


@torch.no_grad()
def _ends_in_head(model: Any, *, bf16: bool = False) -> bool:  # noqa: ANN401 - any model
    """Whether the scores are what a linear head makes of the last layer, and nothing more.

    It is tried: the head gives a ramp instead, which is to arrive as it is.
    """
    head = _head_of(model)
    if head is None:
        return False
    seen: list[Tensor] = []

    def replace(_: nn.Module, inputs: tuple[Tensor], scores: Tensor) -> Tensor:
        seen.append(inputs[0])
        return torch.linspace(-_RAMP, _RAMP, scores.numel()).reshape(scores.shape).to(scores)

    training = model.training
    model.eval()
    hook = head.register_forward_hook(replace)
    try:
        tokens = torch.zeros((1, 2), dtype=torch.int64, device=head.weight.device)
        arrived = forward(model, tokens, bf16=bf16)
        with autocast(tokens.device, bf16=bf16):
            last = model.base_model(input_ids=tokens, use_cache=False)[0]
        ramp = replace(head, (last,), arrived)
    finally:
        hook.remove()
        model.train(training)
    first, *_ = seen
    return torch.equal(arrived, ramp) and torch.equal(first, last)
