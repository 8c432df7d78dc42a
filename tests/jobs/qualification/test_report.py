"""What all workers found becomes one row for each subject, and names who lags behind."""

from __future__ import annotations

import json
from pathlib import Path

from jobs.qualification import report
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench, Finding
from tests.jobs.local_context import LocalContext


def found(rank: int, figure: float | None = None, **facts: object) -> Finding:
    known = {"check": "pace", "subject": "work", "unit": "s", "spread": 3.0, **facts}
    return Finding(rank=rank, figure=figure, **known)  # type: ignore[arg-type]


def test_the_slowest_worker_is_named_where_it_lags_too_far_behind() -> None:
    [row] = report.merged([found(0, 0.1), found(1, 1.0), found(2, 0.2)])
    assert (row.finding.status, row.finding.rank) == (LIMITED, 1)
    assert row.finding.note == "rank 1 is the slowest: 1 s, 0.1 s on rank 0"
    assert (row.finding.figure, row.least, row.most) == (0.2, 0.1, 1.0)


def test_of_rates_the_smallest_is_the_worst() -> None:
    [row] = report.merged([found(0, 9.0, unit="GB/s"), found(1, 1.0, unit="GB/s")])
    assert row.finding.note.startswith("rank 1 is the slowest: 1 GB/s")


def test_a_small_lag_is_none() -> None:
    [row] = report.merged([found(0, 0.1), found(1, 0.2)])
    assert (row.finding.status, row.finding.note) == (PASSED, "")


def test_the_worst_that_any_worker_found_stands_with_its_rank() -> None:
    bad = found(1, status=FAILED, note="wrong")
    [row] = report.merged([found(0, 0.1), bad, found(2, status=SKIPPED)])
    assert (row.finding.status, row.finding.note) == (FAILED, "wrong (rank 1)")


def test_a_report_says_that_a_chip_is_emulated(tmp_path: Path) -> None:
    ctx = LocalContext(folder=tmp_path)
    bench = Bench(ctx)
    bench.step()
    bench.say("memory", "npu:0", figure=1.0, unit="GB")
    values = report.finish(bench)
    assert values["qualification/passed"] == 1.0
    assert ctx.points[-1] == (1, {**values, "host/memory npu-0": 1.0})
    assert "The chip is emulated: every figure is that of the host in its place." in ctx.lines
    told = json.loads((ctx.output / report.NAME).read_text())
    assert (told["emulated"], told["figures"]) == (True, "of the host in the chip's place")
    assert told["findings"][0]["subject"] == "npu:0"
