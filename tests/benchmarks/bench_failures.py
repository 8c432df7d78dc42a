"""What it takes to hear the lines of many workers, and to weigh how all of them failed."""

from __future__ import annotations

import re

from orchestrator.core.failures.failure_report import FailureReport
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.signatures import matcher
from tests.benchmarks.table import Row, compare, cpu_seconds, seconds
from tests.build import documented

WORKERS, LINES = 2_048, 200
SAMPLE = 2_000
EVIDENCE = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer"


def rows() -> list[Row]:
    """Hear lines, against searching each for every pattern; weigh workers that all fail."""
    known = matcher(documented())
    lines = [f"2026-01-02 10:11:12 step {number} loss 2.31" for number in range(SAMPLE)]
    patterns = [re.compile(one.pattern) for one in documented()]
    hearing = seconds(lambda: [known.in_line(line) for line in lines], times=3)
    searching = seconds(lambda: [p.search(line) for line in lines for p in patterns], times=1)
    each = 1e6 / SAMPLE
    return [
        compare(
            "a line that is heard, against searching it for every signature",
            hearing * each,
            searching * each,
            unit="us",
            goal="ratio <= 0.1",
        ),
        *weighed(),
    ]


def weighed() -> list[Row]:
    """Weigh a gang of which all workers fail, against one of half its size."""
    whole, half = (_weighing(workers) for workers in (WORKERS, WORKERS // 2))
    name = f"weigh {WORKERS:,} workers that all fail, against half as many"
    return [compare(name, whole, half, goal="ours < 1 s, ratio < 2.5")]


def _weighing(workers: int) -> float:
    failure_report = FailureReport(matcher(documented()))
    for rank in range(workers):
        for number in range(0, LINES, 20):
            line = f"2026-01-02 10:11:12 step {number} loss 2.31"
            failure_report.hear(rank, line)
    return cpu_seconds(lambda: _weigh(failure_report, workers))


def _weigh(failure_report: FailureReport, workers: int) -> None:
    for rank in range(workers):
        failure = Failure(kind=FailureKind.INTERCONNECT, evidence=EVIDENCE, rank=rank)
        failure_report.report(rank, failure, at=float(rank), now=0.0)
        failure_report.verdict(0.0, all_known=False)
