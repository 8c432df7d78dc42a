"""What a step asks of its rows: of chats a worker reads the masks of its own alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from jobs.data.dataset import RowSource
from jobs.data.tokens.prefetch import PrefetchedRows
from jobs.training.step import Stepper
from tests.jobs.data.tokens.test_packing import rows_of
from tests.jobs.local_context import LocalContext

DOCUMENTS = [[5, 7, 3], [9, 4]]


@dataclass
class Worker:
    """One of several, whose sums are added up by the test."""

    rank: int
    size: int
    device: str = "cpu"
    sums: list[list[int]] = field(default_factory=list)

    def share(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.tensor_split(self.size)[self.rank]

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        self.sums.append(values.tolist())
        return values


class RecordedRows(PrefetchedRows):
    """Rows that note which of them were counted."""

    def __init__(self, ctx: LocalContext, source: RowSource) -> None:
        super().__init__(ctx, source)
        self.counted: list[list[int]] = []

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        self.counted.append(part.tolist())
        return super().counts(part, pad)


def stepper(folder: Path, worker: Any, *, masks: bool) -> Stepper:
    rows, _ = rows_of(folder, DOCUMENTS, masks=masks)
    recorded = RecordedRows(LocalContext(folder=folder), rows)
    nothing: Any = None
    return Stepper(
        group=worker,
        wrapped=nothing,
        optimizer=nothing,
        rows=recorded,
        pad=0,
        accumulate=1,
        clip=1.0,
        balance=nothing,
    )


@pytest.mark.parametrize("size", [2, 3, 9])
def test_masks_are_read_of_a_workers_own_rows_and_counts_added_up(
    tmp_path: Path, size: int
) -> None:
    rows, _ = rows_of(tmp_path / "all", DOCUMENTS, masks=True)
    chosen = torch.arange(len(rows))
    counted: list[int] = []
    sums = torch.zeros(2, dtype=torch.int64)
    for rank in range(size):
        worker = Worker(rank, size)
        training = stepper(tmp_path / f"{rank}", worker, masks=True)
        training.expect(chosen)
        training._counts(chosen)
        assert isinstance(training.rows, RecordedRows)
        (mine,) = training.rows.counted
        counted += mine
        sums += torch.tensor(worker.sums[0])
    assert counted == chosen.tolist()
    assert tuple(sums.tolist()) == rows.counts(chosen, 0)


def test_rows_of_which_all_is_learnt_are_counted_without_a_word_to_others(tmp_path: Path) -> None:
    worker = Worker(0, 2)
    training = stepper(tmp_path / "own", worker, masks=False)
    chosen = torch.arange(len(training.rows))
    rows, _ = rows_of(tmp_path / "all", DOCUMENTS)
    assert training._counts(chosen) == rows.counts(chosen, 0)
    assert not worker.sums
