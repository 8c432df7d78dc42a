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
class MicroBatches:
    """How a worker splits its part of a batch.

    Attributes:
        most_rows: Of its part.
        parts: Into so many; with `tokens` each of what those give, after memory has run out.
        tokens: Most that it takes at once; as many as `parts` give where there is none.
    """

    most_rows: int
    parts: int
    tokens: int | None = None

    @property
    def are_single_rows(self) -> bool:
        """Whether a worker takes one row at once, as far as that is known before the data are."""
        return self.parts >= self.most_rows

    def count(self, width: int) -> int:
        """Return how many a worker takes, of rows of `width` tokens; the last is a label alone."""
        if self.tokens is None:
            return self.parts
        at_once = max(1, self.tokens // max(1, width - 1))
        return min(self.most_rows, -(-self.most_rows // at_once) * self.parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class PretrainingRecipe:
    """The parameters as they are used: those of the job, with the changes of this attempt."""

    batch_size: int
    micro_batches: MicroBatches
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


def micro_batches(
    ctx: JobContext, batch_size: int, accumulate: int, workers: int, tokens: int | None = None
) -> MicroBatches:
    """Return how a worker splits its part of a batch: into no more parts than it may have rows.

    A gang may grow, and memory may have run out before: both are no fault of the recipe.

    Args:
        ctx: The context.
        batch_size: Rows of all workers.
        accumulate: Micro-batches that the recipe asks for.
        workers: Those that share a batch out.
        tokens: Most of a micro-batch, in place of `accumulate`.

    Raises:
        ValueError: The recipe asks for what no number of workers can do.
    """
    if not 1 <= accumulate <= batch_size:
        raise ValueError(
            f"batch_size={batch_size!r} is too small for accumulate={accumulate!r}: "
            f"every micro-batch needs a row, and there is at least one"
        )
    check_tokens(tokens)
    if tokens is not None and accumulate != 1:
        raise ValueError(
            f"micro_batch_tokens={tokens!r} and accumulate={accumulate!r} both say what a worker "
            f"takes at once: give one of them"
        )
    most_rows = -(-batch_size // workers)
    parts = min(accumulate * ctx.adjust.accumulate, most_rows)
    return MicroBatches(most_rows=most_rows, parts=parts, tokens=tokens)


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


def check_tokens(most: int | None) -> None:
    """Refuse tokens of a micro-batch that are none; `None` bounds nothing.

    Raises:
        ValueError: They are none.
    """
    if most is not None and (isinstance(most, bool) or most < 1):
        raise ValueError(f"micro_batch_tokens={most!r}: give a whole number, at least 1")
