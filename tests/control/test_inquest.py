"""Of all that fails in a gang, one failure is told: the cause, as soon as it is known."""

from __future__ import annotations

import pytest

from orchestrator.control.inquest import LINES_TOLD, SETTLE_SECONDS, Inquest
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.messages import LogLine
from tests.build import documented

VICTIM = "RuntimeError: [gloo/transport/tcp/pair.cc:553] Connection closed by peer"


@pytest.fixture
def inquest() -> Inquest:
    return Inquest(documented())


def failed(kind: FailureKind, evidence: str, rank: int, detail: str = "") -> Failure:
    return Failure(kind=kind, evidence=evidence, rank=rank, detail=detail)


def test_nothing_is_known_while_nobody_failed(inquest: Inquest) -> None:
    inquest.hear(LogLine(0, "step 1"))
    assert inquest.verdict(0.0, all_known=True) is None


def test_a_cause_is_told_at_once(inquest: Inquest) -> None:
    inquest.report(0, failed(FailureKind.DATA, "no column", 0), at=5.0, now=0.0)
    found = inquest.verdict(0.0, all_known=False)
    assert found is not None
    assert found.kind is FailureKind.DATA


def test_a_victim_waits_for_its_cause_and_is_told_when_none_comes(inquest: Inquest) -> None:
    inquest.report(0, failed(FailureKind.INTERCONNECT, VICTIM, 0), at=5.0, now=0.0)
    assert inquest.verdict(SETTLE_SECONDS, all_known=False) is None
    late = inquest.verdict(SETTLE_SECONDS + 0.1, all_known=False)
    known = inquest.verdict(0.0, all_known=True)
    assert late == known
    assert late is not None
    assert late.evidence == VICTIM


def test_a_cause_that_is_heard_later_is_told_instead_of_its_victim(inquest: Inquest) -> None:
    inquest.report(0, failed(FailureKind.INTERCONNECT, VICTIM, 0), at=5.0, now=0.0)
    assert inquest.verdict(0.1, all_known=False) is None
    inquest.report(1, failed(FailureKind.WORKER_LOST, "the worker died", 1), at=None, now=0.2)
    found = inquest.verdict(0.2, all_known=False)
    assert found is not None
    assert (found.kind, found.rank) == (FailureKind.WORKER_LOST, 1)


def test_only_the_first_failure_of_a_worker_counts(inquest: Inquest) -> None:
    inquest.report(0, failed(FailureKind.HANG, "no sign", 0), at=5.0, now=0.0)
    assert inquest.hangs
    assert inquest.failed == {0}
    inquest.report(0, failed(FailureKind.WORKER_LOST, "killed by us", 0), at=None, now=0.1)
    found = inquest.verdict(9.0, all_known=True)
    assert found is not None
    assert found.kind is FailureKind.HANG


def test_the_last_lines_of_the_worker_stand_below_what_its_exception_says(
    inquest: Inquest,
) -> None:
    for number in range(300):
        inquest.hear(LogLine(1, f"line {number}"))
    inquest.hear(LogLine(0, "of another"))
    inquest.report(1, failed(FailureKind.DATA, "no column", 1, "Traceback"), at=5.0, now=0.0)
    found = inquest.verdict(0.0, all_known=False)
    assert found is not None
    head, empty, title, *lines = found.detail.splitlines()
    assert (head, empty, title) == ("Traceback", "", "last lines of worker 1:")
    assert len(lines) == LINES_TOLD
    assert lines[-1] == "line 299"


def test_what_was_cancelled_needs_no_lines(inquest: Inquest) -> None:
    inquest.hear(LogLine(0, "line"))
    inquest.report(0, failed(FailureKind.CANCELLED, "given up", 0), at=5.0, now=0.0)
    found = inquest.verdict(0.0, all_known=True)
    assert found is not None
    assert found.detail == ""
