"""What of the rows of a training its model can't learn of, or not as the recipe says."""

from __future__ import annotations

from typing import Any

import torch

from jobs.data.dataset import IGNORE, Rows
from jobs.data.tokens.training_data import RowsConfig, TrainingData
from jobs.training.loss import TokenLoss
from orchestrator.job import JobContext


def vocabulary(net: Any) -> int:  # noqa: ANN401 - a transformers model
    """Return the rows of the embedding."""
    return int(net.get_input_embeddings().weight.shape[0])


def check_rows(ctx: JobContext, config: RowsConfig, data: TrainingData, net: Any) -> None:  # noqa: ANN401 - as above
    """Refuse rows that the model can't learn of as the configuration says.

    Raises:
        DataError: Rows of the data are longer than the model takes.
        ValueError: None has a label, or `rows.sequence` is more than the model takes.
    """
    longest = getattr(net.config, "max_position_embeddings", None)
    if isinstance(data.rows, Rows):
        _check_labels(data.rows, str(ctx.inputs["data"]))
        if longest:
            data.check_width(longest)
        return
    if longest and config.sequence > longest:
        raise ValueError(
            f"rows.sequence={config.sequence!r} is more than the model takes: "
            f"max_position_embeddings={longest!r}"
        )


def check_apart(data: TrainingData, loss: TokenLoss) -> None:
    """Refuse rows whose documents the model would let see each other. Raises `ValueError`."""
    if data.apart and not loss.keeps_apart():
        raise ValueError(
            f"a {loss.model.config.model_type} lets documents of a row see each other, whatever "
            f"their positions: give rows.documents=joined, if that is what you want"
        )


def _check_labels(rows: Rows, data: str) -> None:
    """Refuse rows of which none has anything to be learnt. Raises `ValueError`."""
    parts = torch.split(rows.labels[:, 1:], 4096)
    if len(rows) and not any(bool((part != IGNORE).any()) for part in parts):
        raise ValueError(
            f"no row of the training split of {data!r} has a label: every one of "
            f"{len(rows):,} rows is {IGNORE!r} after its first token, and nothing can be learnt"
        )
