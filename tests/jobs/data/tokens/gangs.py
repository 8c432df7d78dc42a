"""Gangs over gloo, forked after the imports, that prepare tokens and train on them.

`python -m tests.jobs.data.tokens.gangs SPEC`: the spec is a list of gangs, one after the other,
each with what `local_context.main` takes, and `workers`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
import torch._dynamo
import transformers.models.llama.modeling_llama  # noqa: F401

from jobs.data.dataset import RowBatch
from jobs.data.tokens import training_data
from jobs.data.tokens.prefetch import PrefetchedRows
from jobs.pretraining import pretrain
from orchestrator.job import Metrics
from tests.jobs import local_context
from tests.jobs.local_context import LocalContext
from tests.jobs.qualification.forked_gang import fork_all


class RecordedRows(PrefetchedRows):
    """Rows whose content is noted when it is handed out."""

    every: ClassVar[list[Self]] = []

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.reads: list[list[str]] = []
        self.every.append(self)

    def read(self, part: torch.Tensor) -> RowBatch:
        batch = super().read(part)
        self.reads.append([digest_of(batch, row) for row in range(len(batch))])
        return batch


def digest_of(batch: RowBatch, row: int) -> str:
    assert batch.positions is not None
    values = (batch.tokens[row], batch.labels[row], batch.positions[row])
    return hashlib.sha256(b"".join(value.numpy().tobytes() for value in values)).hexdigest()


def recorded(ctx: LocalContext, *, name: str, stop_after: int | None, **recipe: Any) -> Metrics:
    """Train, and write which rows each step has read; a worker may be lost."""
    training_data.PrefetchedRows = RecordedRows  # type: ignore[misc]
    ctx.stop_after = stop_after
    try:
        return pretrain(ctx, **recipe)
    except InterruptedError:
        return {}
    finally:
        to_train_on, _ = RecordedRows.every
        _, *steps = to_train_on.reads  # the first one is no step: it is how the gang is made
        path = Path(ctx.folder, f"{name}-{ctx.rank}.json")
        path.write_text(json.dumps({"steps": steps, "losses": ctx.series("train/loss")}))


def main(gangs: str) -> int:
    """Run all gangs; return how many workers failed."""
    torch.set_num_threads(1)
    failed = 0
    for number, gang in enumerate(json.loads(gangs)):
        size = gang["workers"]
        store = f"{gang['folder']}-store-{number}"
        spec = {**gang, "world_size": size, "store": store}
        failed += fork_all(size, lambda rank, spec=spec: work({**spec, "rank": rank}))
    return failed


def work(spec: dict[str, Any]) -> int:
    local_context.main(json.dumps(spec))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
