"""From what the workers of an attempt left behind to the one failure that caused it.

What the attempt itself and the cluster know stands first; then what an exception shows by its
type, its number or its own words; then what the last lines of a log show. The first worker to fail
decides, and in it the first line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TypeAlias

from orchestrator.core.failures.exceptions import BY_JOB, BY_PLAIN, BY_SIGNAL
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.signatures import STRENGTH, Matcher, Shows, Sign, strongest

# Where a worker hangs that waits for others in a collective.
IN_TORCH = re.compile(r"is in \S*[/\\]torch[/\\]")
# Kinds that the attempt itself or the cluster knows: no line of a log makes them another.
CERTAIN = frozenset(
    {
        FailureKind.NODE_LOST,
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
# What these say is refined by what the last lines of the worker show.
_REFINED = frozenset(
    {
        FailureKind.UNKNOWN,
        FailureKind.INTERCONNECT,
        FailureKind.WORKER_LOST,
        FailureKind.HANG,
    }
)
# What software says after it was cut off from the others is about that.
_IN_ITS_TURN = frozenset(
    ("cause", kind) for kind in (FailureKind.SOFTWARE, FailureKind.USER_CODE, FailureKind.UNKNOWN)
)
# How much a report says of the cause: what is known, what a line shows, what is likely, that a
# worker is gone, and what the others of a gang see.
_KNOWN, _SHOWN, _LIKELY, _GONE, _SEEN = range(5)
_ORDER: Mapping[Shows, int] = MappingProxyType(
    {"cause": _SHOWN, "likely": _LIKELY, "victim": _SEEN, "effect": _SEEN}
)
LOSSES = frozenset({FailureKind.NODE_LOST, FailureKind.WORKER_LOST})
_Order: TypeAlias = tuple[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """How worker `failure.rank` ended: what it or the cluster says, when, and what its log shows.

    `at` orders the workers; any clock will do that is the same for all of them. `signs` are those
    of its last lines, in the order in which they were written.
    """

    failure: Failure
    at: float = 0.0
    signs: tuple[Sign, ...] = ()


@dataclass(frozen=True, slots=True)
class Classification:
    """The failure that caused the others; not `sure` while a worse one may yet be heard of."""

    failure: Failure
    sure: bool


@dataclass(frozen=True, slots=True)
class _Weighed:
    """A report by itself: the failure that it comes to, and how much that says."""

    failure: Failure
    order: _Order


class Classifier:
    """Weighs one report after the other, each once, and keeps the one that says most."""

    def __init__(self, signatures: Matcher) -> None:
        """Have weighed nothing yet."""
        self._signatures = signatures
        self._first: _Weighed | None = None
        self._hang: tuple[tuple[float, bool, float], Failure] | None = None

    def add(self, report: WorkerReport) -> None:
        """Weigh another report."""
        weighed = _weighed(report, self._signatures)
        if self._first is None or weighed.order < self._first.order:
            self._first = weighed
        if weighed.failure.kind is FailureKind.HANG:
            behind = _behind(weighed.failure, report.at)
            if self._hang is None or behind < self._hang[0]:
                self._hang = behind, weighed.failure

    def classification(self) -> Classification:
        """Return the failure that caused the others, and whether more reports could change it.

        Of workers that hang it is the one that the others wait for.

        Raises:
            ValueError: There is no report.
        """
        if self._first is None:
            raise ValueError("there is no report to classify")
        failure, (rank, _) = self._first.failure, self._first.order
        if failure.kind is FailureKind.HANG and self._hang is not None:
            failure = self._hang[1]
        return Classification(failure, sure=rank < _SEEN)


def classify(reports: Sequence[WorkerReport], signatures: Matcher) -> Failure:
    """Return the failure that caused the others, with the line, worker and node that show it.

    Raises:
        ValueError: There is no report.
    """
    return weigh(reports, signatures).failure


def weigh(reports: Iterable[WorkerReport], signatures: Matcher) -> Classification:
    """Return what `classify` does, and whether further reports could change it.

    Raises:
        ValueError: There is no report.
    """
    classifier = Classifier(signatures)
    for report in reports:
        classifier.add(report)
    return classifier.classification()


def _behind(failure: Failure, at: float) -> tuple[float, bool, float]:
    """Order the hangs: the others wait for the one of the fewest steps that is not in torch."""
    step = -1 if failure.step is None else failure.step
    return step, bool(IN_TORCH.search(failure.evidence)), at


def _weighed(report: WorkerReport, signatures: Matcher) -> _Weighed:
    failure = report.failure
    if failure.kind in CERTAIN:
        return _Weighed(failure, (_KNOWN, report.at))
    if failure.sign == BY_JOB:
        return _Weighed(failure, (_SHOWN, report.at))
    if failure.sign == BY_PLAIN:
        return _Weighed(failure, (_LIKELY, report.at))
    return _with_log(report, _shows(failure, signatures))


def _shows(failure: Failure, signatures: Matcher) -> Shows | None:
    """Return what the failure shows by itself; nothing where it is only likely for want of one."""
    if failure.sign in signatures.by_name:
        shows = signatures.by_name[failure.sign].shows
        unsure = not failure.certain and failure.kind is not FailureKind.USER_CODE
        return "likely" if shows == "cause" and unsure else shows
    if failure.kind is FailureKind.INTERCONNECT:
        return "victim"
    if failure.certain and failure.kind not in _REFINED:
        return "cause"
    return "likely" if failure.sign else None


def _with_log(report: WorkerReport, own: Shows | None) -> _Weighed:
    """Weigh a failure, which shows `own` by itself, with what the last lines of its worker show.

    What it shows itself stands before lines that say no more; of one kind, the line is nearer. Any
    line says more than which signal ended it, but for one that tells of that signal alone.
    """
    failure = report.failure
    signal = failure.sign.startswith(BY_SIGNAL)
    sign = _telling([sign for sign in report.signs if not (signal and sign.of_a_signal)])
    mine = STRENGTH.index(own) if own and not signal else len(STRENGTH)
    known = own == "cause" and failure.kind not in _REFINED
    if sign is not None and (
        (sign.weakness < mine and not known)
        or (sign.weakness <= mine and (own == "victim" or sign.signature.kind is failure.kind))
    ):
        failure, own = _shown(failure, sign), sign.shows
    order = _ORDER[own] if own else _GONE if failure.kind in LOSSES else _SEEN
    return _Weighed(failure, (order, report.at))


def _telling(signs: Sequence[Sign]) -> Sign | None:
    """Return the sign among those of a log that says most; of equals the first.

    What stands after the sign of a victim and is of software is about that.
    """
    seen = next((at for at, sign in enumerate(signs) if sign.shows == "victim"), len(signs))
    later = (
        sign
        for sign in signs[seen:]
        if sign.shows != "likely" and (sign.shows, sign.signature.kind) not in _IN_ITS_TURN
    )
    return strongest((*signs[:seen], *later))


def _shown(failure: Failure, sign: Sign) -> Failure:
    """Return the failure of the worker whose log has the sign, as the sign tells it."""
    shown = replace(
        failure,
        kind=sign.signature.kind,
        certain=sign.shows == "cause" and sign.signature.kind is not FailureKind.USER_CODE,
        sign=sign.signature.name,
    )
    if sign.line == failure.evidence:
        return shown
    detail = f"{failure.evidence}\n{failure.detail}".strip()
    return replace(shown, evidence=sign.line, detail=detail)
