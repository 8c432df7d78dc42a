"""What a training is to do, as it is used: the parameters, with the changes of an attempt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from jobs.data.tokens.training_data import RowsConfig
from jobs.training.optimizers import OptimizerConfig
from jobs.training.parallel.degrees import MeshDegrees
from jobs.training.profiling import ProfiledSteps
from jobs.training.schedule import Schedule
from jobs.training.trainer import Every
from orchestrator.job import JobContext


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingRecipe:
    """The parameters as they are used: those of the job, with the changes of this attempt."""

    batch_size: int
    accumulate: int
    micro_batch_tokens: int | None
    most_rows: int  # of a worker
    schedule: Schedule
    optimizer: OptimizerConfig
    clip: float
    patience: int
    router_bias_rate: float
    parallel: MeshDegrees | None
    activation_checkpointing: bool
    compile: str | None
    precision: str
    weights: str
    every: Every
    validation_rows: int
    rows: RowsConfig
    profile: ProfiledSteps | None

    @property
    def takes_single_rows(self) -> bool:
        """Whether a worker takes one row at once, as far as that is known before the data are."""
        return self.micro_batch_tokens is None and self.accumulate == self.most_rows

    def micro_batches(self, width: int) -> int:
        """Return how many micro-batches a worker takes, of rows of `width` tokens."""
        if self.micro_batch_tokens is None:
            return self.accumulate
        at_once = max(1, self.micro_batch_tokens // width)
        return -(-self.most_rows // at_once)


def micro_batches(ctx: JobContext, batch_size: int, accumulate: int, parts: int) -> int:
    """Return how many micro-batches a worker takes: no more than it may have rows.

    A batch is taken in so many `parts`, of about as many rows.

    A gang may grow, and memory may have run out before: both are no fault of the recipe.

    Raises:
        ValueError: The recipe asks for what no number of workers can do.
    """
    if not 1 <= accumulate <= batch_size:
        raise ValueError(
            f"batch_size={batch_size!r} is too small for accumulate={accumulate!r}: "
            f"every micro-batch needs a row, and there is at least one"
        )
    return min(accumulate * ctx.adjust.accumulate, -(-batch_size // parts))


@contextmanager
def at_the_least(smallest: bool) -> Iterator[None]:  # noqa: FBT001 - the whole question
    """Say of memory that runs out whether smaller micro-batches could help.

    Raises:
        torch.OutOfMemoryError: It ran out, and they are the `smallest`, of one row each.
    """
    try:
        yield
    except RuntimeError as error:
        if not smallest or "out of memory" not in str(error).lower():
            raise
        raise torch.OutOfMemoryError(
            f"a micro-batch of one row does not fit: it needs a pool with more memory, or "
            f"parallel.shard over more workers ({error})"
        ) from error


def tokens_at_once(ctx: JobContext, most: int | None, accumulate: int) -> int | None:
    """Return the tokens of a micro-batch, fewer where memory has run out before.

    Raises:
        ValueError: They are none, or `accumulate` says another number.
    """
    if most is None:
        return None
    if isinstance(most, bool) or most < 1:
        raise ValueError(f"micro_batch_tokens={most!r}: give a whole number, at least 1")
    if accumulate != 1:
        raise ValueError(
            f"micro_batch_tokens={most!r} and accumulate={accumulate!r} both say what a worker "
            f"takes at once: give one of them"
        )
    return max(1, most // ctx.adjust.accumulate)
