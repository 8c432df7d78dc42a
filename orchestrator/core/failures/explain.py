"""What a worker that printed these lines, and ended so, would be taken to have failed of."""

from __future__ import annotations

from orchestrator.core.failures.exceptions import judge
from orchestrator.core.failures.failure_report import FailureReport
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.log_excerpt import Excerpt
from orchestrator.core.failures.signatures import Signature, matcher

WITHOUT_A_WORD = "the worker ended without a word"


def explain(excerpt: Excerpt, signatures: tuple[Signature, ...]) -> Failure:
    """Return the failure that the worker's attempt would end with."""
    failure_report = FailureReport(signatures)
    for line in excerpt.lines:
        failure_report.hear(0, line)
    failure_report.report(0, _ended(excerpt, signatures), at=0.0, now=0.0)
    judgement = failure_report.verdict(0.0, all_known=True)
    assert judgement is not None, "a worker is reported"  # noqa: S101
    return judgement


def _ended(excerpt: Excerpt, signatures: tuple[Signature, ...]) -> Failure:
    if not excerpt.raised:
        return Failure(kind=FailureKind.WORKER_LOST, evidence=WITHOUT_A_WORD, rank=0)
    judgement = judge(excerpt.raised, matcher(signatures))
    first = (excerpt.raised[0].in_full.splitlines() or [""])[0]
    return Failure(
        kind=judgement.kind,
        evidence=judgement.line or first,
        rank=0,
        certain=judgement.certain,
        sign=judgement.sign,
    )
