"""Rows that are read beforehand are those that are asked for; a slow store is told of."""

from __future__ import annotations

import errno
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event

import pytest
import torch

from jobs.data.dataset import RowBatch, Rows
from jobs.data.tokens.prefetch import PrefetchedRows
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.worker.exception_report import describe
from tests.build import documented
from tests.jobs.local_context import LocalContext

TABLE = torch.arange(40, dtype=torch.int32).reshape(10, 4)
BATCH, SHARE = torch.tensor([3, 1, 4, 5]), torch.tensor([3, 1])


@dataclass
class SlowRows:
    """Rows of a store that answers when it is let."""

    answers: Event = field(default_factory=Event)
    reads: list[list[int]] = field(default_factory=list)
    fails: OSError | None = None

    def __len__(self) -> int:
        return len(TABLE)

    @property
    def width(self) -> int:
        return TABLE.shape[1]

    @property
    def reads_to_count(self) -> bool:
        return False

    def read(self, part: torch.Tensor) -> RowBatch:
        self.reads.append(part.tolist())
        self.answers.wait()
        if self.fails:
            raise self.fails
        return Rows(TABLE, TABLE).read(part)

    def counts(self, part: torch.Tensor, pad: int) -> tuple[int, int]:
        self.answers.wait()
        return Rows(TABLE, TABLE).counts(part, pad)


@dataclass(kw_only=True)
class Patient(LocalContext):
    """Lets the store answer after so many lines of the log."""

    store: SlowRows
    lines_before: int = 0

    def log(self, message: str) -> None:
        super().log(message)
        if len(self.lines) == self.lines_before:
            self.store.answers.set()


def test_what_is_expected_is_read_once_and_before_it_is_asked_for(tmp_path: Path) -> None:
    store = SlowRows()
    rows = PrefetchedRows(LocalContext(folder=tmp_path), store)
    rows.expect(BATCH, SHARE, pad=0)
    rows.expect(BATCH, SHARE, pad=0)
    store.answers.set()
    assert rows.read(SHARE).tokens.equal(TABLE[SHARE])
    assert rows.counts(BATCH, 0) == (16, 12)
    assert store.reads == [[3, 1]]
    assert rows.read(torch.tensor([9])).tokens.equal(TABLE[9:]), "others are read then"


def test_a_store_that_takes_long_is_told_of_and_waited_for(tmp_path: Path) -> None:
    store = SlowRows()
    ctx = Patient(folder=tmp_path, store=store, lines_before=2)
    rows = PrefetchedRows(ctx, store, told_after=0.01)
    assert rows.read(SHARE).tokens.equal(TABLE[SHARE])
    assert len(ctx.lines) >= 2
    assert ctx.lines[0] == "rows have not come for 0 s: the store that they lie in is slow"
    assert rows.waited >= 0.02


def test_a_store_that_never_answers_is_a_failure_of_the_storage(tmp_path: Path) -> None:
    store = SlowRows()
    ctx = LocalContext(folder=tmp_path)
    rows = PrefetchedRows(ctx, store, told_after=0.01, longest=0.02)
    with pytest.raises(OSError, match="rows have not come for") as caught:
        rows.read(SHARE)
    store.answers.set()
    assert caught.value.errno == errno.ETIME
    report = describe(caught.value, documented())
    assert (report.kind, report.certain) == (FailureKind.STORAGE, True)


@pytest.mark.parametrize("error", [TimeoutError("too slow"), OSError(errno.EIO, "gone")])
def test_what_a_store_raises_is_raised_where_its_rows_are_asked_for(
    tmp_path: Path, error: OSError
) -> None:
    store = SlowRows(fails=error)
    rows = PrefetchedRows(LocalContext(folder=tmp_path), store)
    rows.expect(BATCH, SHARE, pad=0)
    store.answers.set()
    with pytest.raises(type(error)) as caught:
        rows.read(SHARE)
    assert caught.value is error
