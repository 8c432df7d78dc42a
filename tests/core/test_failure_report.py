"""Of all that fails in a gang, one failure is told: the cause, as soon as it is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.core.failures.failure_report import (
    LINES_THAT_COUNT,
    LINES_TOLD,
    FailureReport,
)
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.signatures import Matcher, Sign
from orchestrator.core.settings import PATIENT
from tests.build import documented

VICTIM = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer"
OFF_THE_BUS = "NVRM: Xid (PCI:0000:3b:00): 79, GPU has fallen off the bus."


@pytest.fixture
def report() -> FailureReport:
    return FailureReport(documented(), PATIENT.settle)


def failed(kind: FailureKind, evidence: str, rank: int, detail: str = "") -> Failure:
    return Failure(kind=kind, evidence=evidence, rank=rank, detail=detail)


def died_of(report: FailureReport, *lines: str) -> FailureKind:
    """Return why a worker is known to have died that had written such lines."""
    for line in lines:
        report.hear(0, line)
    report.report(0, failed(FailureKind.WORKER_LOST, "the worker died", 0), at=5.0, now=0.0)
    found = report.verdict(0.0, all_known=True)
    assert found is not None
    return found.kind


def test_nothing_is_known_while_nobody_failed(report: FailureReport) -> None:
    report.hear(0, "step 1")
    assert report.verdict(0.0, all_known=True) is None


def test_how_long_a_cause_is_waited_for_is_a_setting() -> None:
    report = FailureReport(documented(), settle=30.0)
    report.report(0, failed(FailureKind.INTERCONNECT, VICTIM, 0), at=5.0, now=0.0)
    assert report.verdict(30.0, all_known=False) is None
    late = report.verdict(30.1, all_known=False)
    assert late is not None
    assert late.kind is FailureKind.INTERCONNECT


def test_a_cause_is_told_at_once(report: FailureReport) -> None:
    report.report(0, failed(FailureKind.DATA, "no column", 0), at=5.0, now=0.0)
    found = report.verdict(0.0, all_known=False)
    assert found is not None
    assert found.kind is FailureKind.DATA


def test_a_victim_waits_for_its_cause_and_is_told_when_none_comes(report: FailureReport) -> None:
    report.report(0, failed(FailureKind.INTERCONNECT, VICTIM, 0), at=5.0, now=0.0)
    assert report.verdict(PATIENT.settle, all_known=False) is None
    late = report.verdict(PATIENT.settle + 0.1, all_known=False)
    known = report.verdict(0.0, all_known=True)
    assert late == known
    assert late is not None
    assert late.evidence == VICTIM


def test_a_cause_that_is_heard_later_is_told_instead_of_its_victim(report: FailureReport) -> None:
    report.report(0, failed(FailureKind.INTERCONNECT, VICTIM, 0), at=5.0, now=0.0)
    assert report.verdict(0.1, all_known=False) is None
    report.report(1, failed(FailureKind.WORKER_LOST, "the worker died", 1), at=None, now=0.2)
    found = report.verdict(0.2, all_known=False)
    assert found is not None
    assert (found.kind, found.rank) == (FailureKind.WORKER_LOST, 1)


def test_only_the_first_failure_of_a_worker_counts(report: FailureReport) -> None:
    report.report(0, failed(FailureKind.HANG, "no sign", 0), at=5.0, now=0.0)
    assert report.hangs
    assert report.failed == {0}
    report.report(0, failed(FailureKind.WORKER_LOST, "killed by us", 0), at=None, now=0.1)
    found = report.verdict(9.0, all_known=True)
    assert found is not None
    assert found.kind is FailureKind.HANG


def test_the_last_lines_of_the_worker_stand_below_what_its_exception_says(
    report: FailureReport,
) -> None:
    for number in range(300):
        report.hear(1, f"line {number}")
    report.hear(0, "of another")
    report.report(1, failed(FailureKind.DATA, "no column", 1, "Traceback"), at=5.0, now=0.0)
    found = report.verdict(0.0, all_known=False)
    assert found is not None
    head, empty, title, *lines = found.detail.splitlines()
    assert (head, empty, title) == ("Traceback", "", "last lines of worker 1:")
    assert len(lines) == LINES_TOLD
    assert lines[-1] == "line 299"


def test_what_was_cancelled_needs_no_lines(report: FailureReport) -> None:
    report.hear(0, "line")
    report.report(0, failed(FailureKind.CANCELLED, "given up", 0), at=5.0, now=0.0)
    found = report.verdict(0.0, all_known=True)
    assert found is not None
    assert found.detail == ""


def test_only_the_last_lines_before_the_end_count(report: FailureReport) -> None:
    steps = [f"step {number}" for number in range(LINES_THAT_COUNT)]
    assert died_of(report, OFF_THE_BUS, *steps) is FailureKind.WORKER_LOST


@pytest.mark.parametrize("rank", ["", "[rank1]: "])
def test_lines_of_a_stack_do_not_push_out_what_stands_before_them(
    report: FailureReport, rank: str
) -> None:
    numbers = range(3 * LINES_THAT_COUNT)
    stack = [f"{rank}frame #{number}: c10::Error::Error() + 0x57" for number in numbers]
    assert died_of(report, OFF_THE_BUS, *stack) is FailureKind.DEVICE_LOST


class CountingMatcher(Matcher):
    """Counts how often it is asked for a line."""

    asked = 0

    def in_line(self, text: str) -> Sign | None:
        self.asked += 1
        return super().in_line(text)


def test_each_line_is_matched_once_however_many_workers_fail() -> None:
    counting = CountingMatcher(documented())
    report = FailureReport(counting)
    for rank in range(64):
        for number in range(200):
            report.hear(rank, f"step {number} loss 2.{rank}")
    for rank in range(64):
        report.report(rank, failed(FailureKind.INTERCONNECT, VICTIM, rank), at=5.0, now=0.0)
        report.verdict(0.0, all_known=False)
    assert counting.asked == 64 * 200


def test_of_many_workers_the_first_to_fail_is_the_one_that_is_told(report: FailureReport) -> None:
    for rank in range(2_048):
        report.report(
            rank, failed(FailureKind.OUT_OF_MEMORY, "oom", rank), at=9.0 - (rank == 7), now=0.0
        )
    found = report.verdict(0.0, all_known=True)
    assert found is not None
    assert found.rank == 7


@pytest.mark.parametrize(("steps", "kind"), [(2, "out_of_memory"), (3, "worker_lost")])
def test_what_a_job_went_on_after_is_not_what_it_died_of(
    report: FailureReport, steps: int, kind: str
) -> None:
    after = [f"step {number} loss 2.1" for number in range(steps)]
    line = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate"
    assert died_of(report, line, *after) == kind


ABORTED = (
    "*** SIGABRT received at time=1700000000 on cpu 0 ***",
    "PC: @     0x7fbf372a8eec  (unknown)  (unknown)",
    "[2026-01-02 10:11:12,956 E 7 7] logging.cc:474: *** SIGABRT received at time=1 on cpu 0 ***",
    "Fatal Python error: Aborted",
    '  File "job.py", line 8 in job',
)


def ended_after(
    report: FailureReport, *lines: str, sign: str = "", evidence: str = "died"
) -> Failure:
    for line in (*lines, *ABORTED):
        report.hear(0, line)
    kind = FailureKind.SOFTWARE if sign else FailureKind.WORKER_LOST
    lost = replace(failed(kind, evidence, 0), sign=sign, certain=not sign)
    report.report(0, lost, at=5.0, now=0.0)
    found = report.verdict(0.0, all_known=True)
    assert found is not None
    return found


def test_what_a_handler_of_signals_writes_is_an_effect_of_the_line_before_it(
    report: FailureReport,
) -> None:
    found = ended_after(report, "terminate called", "  what():  xyzzy: fatal 0x77")
    assert (found.kind, found.certain) == (FailureKind.SOFTWARE, False)
    assert found.evidence == "what():  xyzzy: fatal 0x77"


def test_a_step_is_not_what_a_process_died_of(report: FailureReport) -> None:
    assert ended_after(report, "step 7 loss 2.1").evidence == ABORTED[0]


def test_what_shows_more_than_that_it_was_aborted_is_told(report: FailureReport) -> None:
    known = "RuntimeError: CUDA error: unspecified launch failure"
    found = ended_after(report, known, "terminating")
    assert found.evidence == known


def test_a_known_line_says_more_than_the_signal(report: FailureReport) -> None:
    known = "  what():  CUDA error: an illegal memory access was encountered"
    told = f"worker 0 on n1 was ended by SIGABRT; its last line: {known.strip()}"
    found = ended_after(report, known, sign="signal_SIGABRT", evidence=told)
    assert (found.kind, found.certain) == (FailureKind.USER_CODE, False)
    assert found.evidence == known.strip()


def test_how_a_process_ended_is_told_with_its_last_line(report: FailureReport) -> None:
    told = "worker 0 on n1 was ended by SIGABRT; its last line: what():  xyzzy"
    found = ended_after(report, "  what():  xyzzy", sign="signal_SIGABRT", evidence=told)
    assert (found.kind, found.certain, found.evidence) == (FailureKind.SOFTWARE, False, told)
