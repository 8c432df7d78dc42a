"""From what the workers of an attempt left behind to the one failure that caused it.

Signatures are data: patterns of the makers' own error lines. A signature shows a `cause`, a
`victim` (what the others of a gang see when one is gone: an effect, until no cause shows), or an
`effect`, which is never a cause. The first worker to fail decides, and in it the first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

from orchestrator.core.failure import Failure, FailureKind

Shows: TypeAlias = Literal["cause", "victim", "effect"]

# What a worker's exception of these types says is about the code that raised it, whatever its log
# holds from before.
PLAIN = re.compile(
    r"^(Value|Key|Type|Attribute|Assertion|Index|Name|Import|ModuleNotFound|ZeroDivision|Lookup"
    r"|UnboundLocal|FileNotFound|Permission|Syntax|Recursion|UnicodeDecode|Job|Artifact)Error\b"
)
# Where a worker hangs that waits for others in a collective.
IN_TORCH = re.compile(r"is in \S*[/\\]torch[/\\]")
LOSSES = frozenset({FailureKind.NODE_LOST, FailureKind.WORKER_LOST})
SECONDARY = frozenset({FailureKind.INTERCONNECT, FailureKind.HANG})
# Kinds that the attempt itself knows: no line of a log makes them another.
CERTAIN = frozenset(
    {
        FailureKind.NUMERICAL_DIVERGENCE,
        FailureKind.PLACEMENT,
        FailureKind.DATA,
        FailureKind.PARITY,
        FailureKind.SERVING,
        FailureKind.DRAINED,
        FailureKind.CONTROLLER_LOST,
        FailureKind.BUDGET,
        FailureKind.TIME,
        FailureKind.CANCELLED,
    }
)
# What software says after it was cut off from the others is about that.
_IN_ITS_TURN = frozenset({FailureKind.SOFTWARE, FailureKind.USER_CODE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A regular expression that is searched in each line, and what a line with it shows."""

    pattern: str
    kind: FailureKind
    shows: Shows = "cause"
    source: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How worker `failure.rank` ended: what it or the cluster says, when, and its last lines.

    `at` orders the workers; any clock will do that is the same for all of them.
    """

    failure: Failure
    at: float = 0.0
    tail: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Sign:
    signature: Signature
    line: str
    report: Report


def match(line: str, signatures: Sequence[Signature]) -> Signature | None:
    """Return the first of `signatures` that `line` has."""
    return next((one for one in signatures if _compiled(one.pattern).search(line)), None)


def kind_of(said: str, signatures: Sequence[Signature]) -> FailureKind:
    """Return what an exception that said `Type: message` shows; the user's own code if nothing."""
    found = match(said, signatures)
    return found.kind if found and found.shows != "effect" else FailureKind.USER_CODE


@dataclass(frozen=True, slots=True)
class Verdict:
    """The failure that caused the others; not `sure` while a worse one may yet be heard of."""

    failure: Failure
    sure: bool


def classify(reports: Sequence[Report], signatures: Sequence[Signature]) -> Failure:
    """Return the failure that caused the others, with the line, worker and node that show it.

    Raises:
        ValueError: There is no report.
    """
    return weigh(reports, signatures).failure


def weigh(reports: Sequence[Report], signatures: Sequence[Signature]) -> Verdict:
    """Return what `classify` does, and whether further reports could change it.

    Raises:
        ValueError: There is no report.
    """
    if not reports:
        raise ValueError("there is no report to classify")
    ordered = sorted(reports, key=lambda report: report.at)
    signs = {id(report): tuple(_signs(report, signatures)) for report in ordered}
    cause = _first("cause", (sign for report in ordered for sign in signs[id(report)]))
    if cause:
        return Verdict(_shown(cause), sure=True)
    victims = {id(report): _first("victim", signs[id(report)]) for report in ordered}
    told = [report.failure for report in ordered if not victims[id(report)]]
    own = [one for one in told if one.kind not in SECONDARY | LOSSES and not _vague(one)]
    nodes = [one for one in told if one.kind is FailureKind.NODE_LOST]
    workers = [one for one in told if one.kind is FailureKind.WORKER_LOST]
    if own or nodes or workers:
        return Verdict((own or nodes or workers)[0], sure=True)
    victim = victims[id(ordered[0])]
    if victim:
        return Verdict(_shown(victim), sure=False)
    if ordered[0].failure.kind is FailureKind.HANG:
        return Verdict(_first_to_hang(ordered), sure=False)
    return Verdict(ordered[0].failure, sure=False)


def _first(shows: Shows, signs: Iterable[_Sign]) -> _Sign | None:
    return next((sign for sign in signs if sign.signature.shows == shows), None)


def _first_to_hang(reports: Sequence[Report]) -> Failure:
    """Return the hang that the others wait for: of the fewest steps, and not in torch itself."""
    hangs = [report for report in reports if report.failure.kind is FailureKind.HANG]

    def order(report: Report) -> tuple[float, bool, float]:
        failure = report.failure
        step = -1 if failure.step is None else failure.step
        return step, bool(IN_TORCH.search(failure.evidence)), report.at

    return min(hangs, key=order).failure


def _vague(failure: Failure) -> bool:
    """Whether nothing but the lack of a signature makes it the user's own code."""
    return failure.kind is FailureKind.USER_CODE and not PLAIN.search(failure.evidence)


def _signs(report: Report, signatures: Sequence[Signature]) -> Iterator[_Sign]:
    """Yield what the report shows, in the order in which it was written."""
    failure, cut_off = report.failure, False
    plain = failure.kind is FailureKind.USER_CODE and PLAIN.search(failure.evidence)
    for line in () if plain or failure.kind in CERTAIN else (*report.tail, failure.evidence):
        found = match(line, signatures)
        if found and not (cut_off and found.kind in _IN_ITS_TURN):
            cut_off = cut_off or found.shows == "victim"
            yield _Sign(found, line, report)


def _shown(sign: _Sign) -> Failure:
    """Return the failure of the worker that the sign was found in, as the sign tells it."""
    failure = sign.report.failure
    if sign.line == failure.evidence:
        return replace(failure, kind=sign.signature.kind)
    detail = f"{failure.evidence}\n{failure.detail}".strip()
    return replace(failure, kind=sign.signature.kind, evidence=sign.line.strip(), detail=detail)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)
