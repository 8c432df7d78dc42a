"""What is told of a failure is its cause: the kind, the line that shows it, and the worker."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.core.failures.classify import WorkerReport, classify, weigh
from orchestrator.core.failures.exceptions import BY_JOB, Raised, judge
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.python_errors import bases
from orchestrator.core.failures.signatures import matcher
from tests.build import documented

CORPUS = Path(__file__).parent / "corpus"


@cache
def cases() -> dict[str, Any]:
    files = sorted(CORPUS.glob("*.yaml"))
    return {
        f"{file.stem}-{name}": case
        for file in files
        for name, case in yaml.safe_load(file.read_text()).items()
    }


def reports(case: dict[str, Any]) -> list[WorkerReport]:
    """Return the reports of a case, in the order in which they are told."""
    return [report(one, float(at)) for at, one in enumerate(case["reports"], 1)]


def report(told: dict[str, Any], at: float) -> WorkerReport:
    kind = told.get("kind")
    known = matcher(documented())
    signs = tuple(sign for line in told.get("lines", ()) if (sign := known.in_line(line)))
    failure = Failure(
        kind=FailureKind(kind) if kind else FailureKind.UNKNOWN,
        evidence=told["error"],
        rank=told["rank"],
        step=told.get("step"),
    )
    if not kind:
        name, _, message = told["error"].partition(": ")
        found = judge((Raised(bases(name), message),), known)
        failure = replace(failure, kind=found.kind, certain=found.certain, sign=found.sign)
    return WorkerReport(failure=failure, at=at, signs=signs)


def test_the_corpus_is_large_enough_to_mean_something() -> None:
    assert len(cases()) >= 60
    kinds = {case["expect"]["kind"] for case in cases().values()}
    assert len(kinds) >= 12


@pytest.mark.parametrize("name", cases())
def test_the_cause_is_told_with_its_line_and_its_worker(name: str) -> None:
    case = cases()[name]
    found, expected = classify(reports(case), matcher(documented())), case["expect"]

    assert (found.kind, found.rank) == (expected["kind"], expected["rank"])
    assert expected["evidence"] in found.evidence


@pytest.mark.parametrize("name", cases())
def test_the_order_in_which_workers_are_heard_does_not_matter(name: str) -> None:
    told = reports(cases()[name])
    assert classify(told[::-1], matcher(documented())) == classify(told, matcher(documented()))


def test_no_kind_is_taken_for_another() -> None:
    pairs = Counter(
        (str(case["expect"]["kind"]), str(classify(reports(case), matcher(documented())).kind))
        for case in cases().values()
    )
    wrong = {pair: count for pair, count in pairs.items() if pair[0] != pair[1]}
    assert not wrong, f"confusion (expected -> told):\n{_table(pairs)}"


def _table(pairs: Counter[tuple[str, str]]) -> str:
    rows = sorted(pairs.items())
    return "\n".join(f"{told:>22} <- {kind:<22} {count}" for (kind, told), count in rows)


def test_without_a_report_there_is_nothing_to_tell() -> None:
    with pytest.raises(ValueError, match="no report"):
        classify([], matcher(documented()))


@pytest.mark.parametrize(
    ("name", "sure"),
    [
        ("any-user_code_in_one_and_closed_links_in_the_others", True),
        ("any-gloo_closed_by_a_killed_peer", True),
        ("any-gloo_timed_out", False),
        ("any-own_exception_in_one_and_closed_links_in_the_others", False),
        ("any-hang_of_all_where_one_is_behind", False),
        ("ascend-uncorrectable_memory", True),
    ],
)
def test_a_verdict_is_sure_once_a_cause_is_known(name: str, *, sure: bool) -> None:
    assert weigh(reports(cases()[name]), matcher(documented())).sure is sure


def test_what_the_worker_itself_said_stands_below_the_line_that_shows_the_cause() -> None:
    failure = Failure(
        kind=FailureKind.WORKER_LOST, evidence="the worker died", detail="more", rank=2, step=7
    )
    known = matcher(documented())
    sign = known.in_line("UCE ERROR ")
    assert sign is not None
    found = classify([WorkerReport(failure=failure, signs=(sign,))], known)

    assert (found.evidence, found.detail) == ("UCE ERROR", "the worker died\nmore")
    assert (found.rank, found.step, found.sign) == (2, 7, "ascend_hbm_ecc")


def test_what_the_cluster_knows_of_a_node_is_not_made_another_by_a_line() -> None:
    known = matcher(documented())
    sign = known.in_line("CUDA error: uncorrectable ECC error encountered")
    assert sign is not None
    lost = Failure(kind=FailureKind.NODE_LOST, evidence="node 'n1' is gone")
    assert classify([WorkerReport(failure=lost, signs=(sign,))], known) == lost


def test_a_lost_node_stands_before_what_others_printed_before_it_was_heard_of() -> None:
    known = matcher(documented())
    sign = known.in_line("UCE ERROR")
    assert sign is not None
    died = Failure(kind=FailureKind.WORKER_LOST, evidence="died", rank=0)
    lost = Failure(kind=FailureKind.NODE_LOST, evidence="node 'n1' is gone", rank=1)
    told = [WorkerReport(failure=died, at=1.0, signs=(sign,)), WorkerReport(failure=lost, at=2.0)]
    assert classify(told, known) == lost


@pytest.mark.parametrize("kind", [FailureKind.INTERCONNECT, FailureKind.UNKNOWN])
def test_what_a_job_knows_of_its_failure_is_no_line_s_to_change(kind: FailureKind) -> None:
    known = matcher(documented())
    sign = known.in_line("torch.OutOfMemoryError: CUDA out of memory")
    assert sign is not None
    own = Failure(kind=kind, evidence="ended with 77", certain=True, sign=BY_JOB, rank=1)
    other = Failure(kind=FailureKind.WORKER_LOST, evidence="gone", rank=0)
    first = WorkerReport(failure=other, at=1.0)
    told = weigh([first, WorkerReport(failure=own, at=2.0, signs=(sign,))], known)
    assert told.failure is own
    assert told.sure
