"""What the workers of an attempt left behind, and the one failure that it comes to."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from orchestrator.core.classify import Report, Signature, Verdict, weigh
from orchestrator.core.failure import Failure, FailureKind
from orchestrator.messages import LogLine

LINES_KEPT = 200
LINES_TOLD = 50
SETTLE_SECONDS = 3.0


class Inquest:
    """Hears all workers of one attempt.

    `at` is of the workers' clocks, which are taken to agree; `now` is of the hearer's. Seconds.
    """

    def __init__(self, signatures: Sequence[Signature]) -> None:
        """Have heard nothing yet."""
        self._signatures = signatures
        self._tails: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=LINES_KEPT))
        self._reports: dict[int, Report] = {}
        self._since = 0.0
        self._verdict: Verdict | None = None

    @property
    def failed(self) -> AbstractSet[int]:
        """The workers that have failed."""
        return self._reports.keys()

    @property
    def hangs(self) -> bool:
        """Whether any of them hangs."""
        return any(one.failure.kind is FailureKind.HANG for one in self._reports.values())

    def hear(self, line: LogLine) -> None:
        """Keep a line among the last ones of its worker."""
        self._tails[line.rank].append(line.text)

    def report(self, rank: int, failure: Failure, *, at: float | None, now: float) -> None:
        """Take down that worker `rank` failed, which showed at `at` and is heard of at `now`.

        Where nobody knows when it showed, it is taken to be later than all that is known. Only
        the first failure of a worker counts.
        """
        if rank in self._reports:
            return
        self._since = self._since if self._reports else now
        known = max((report.at for report in self._reports.values()), default=0.0)
        tail = tuple(self._tails[rank])
        at = known if at is None else at
        self._reports[rank] = Report(failure=failure, at=at, tail=tail)
        self._verdict = None

    def verdict(self, now: float, *, all_known: bool) -> Failure | None:
        """Return the failure that caused the others, once it is known or no more will come."""
        if not self._reports:
            return None
        if self._verdict is None:
            self._verdict = weigh(tuple(self._reports.values()), self._signatures)
        if self._verdict.sure or all_known or now - self._since > SETTLE_SECONDS:
            return self._with_lines(self._verdict.failure)
        return None

    def _with_lines(self, failure: Failure) -> Failure:
        """Return `failure` with the last lines of its worker below what it says itself."""
        rank = failure.rank or 0
        lines = tuple(self._tails[rank])[-LINES_TOLD:]
        if not lines or failure.kind is FailureKind.CANCELLED:
            return failure
        told = f"last lines of worker {rank}:\n" + "\n".join(lines)
        return replace(failure, detail=f"{failure.detail}\n\n{told}".lstrip())
