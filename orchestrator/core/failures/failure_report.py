"""What the workers of an attempt left behind, and the one failure that it comes to."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Set as AbstractSet
from dataclasses import replace

from orchestrator.core.failures.classify import Classifier, WorkerReport
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.failures.lines import begin_of, last_words, of_a_handler, of_a_stack
from orchestrator.core.failures.signatures import Matcher, Sign, Signature, matcher

LINES_KEPT = 200
LINES_TOLD = 50
# What a line shows counts while so few have followed it; those of a stack belong to it.
LINES_THAT_COUNT = 20
# So many steps after a line its job has survived what that tells of.
STEPS_SURVIVED = 3
_STEP = re.compile(r"(?i)(?:\S+ )?(?:step|epoch|iter(?:ation)?|batch)\b[ :=#\[]*\d+")


class _Tail:
    """The last lines of a worker, and what they show: each is looked at once, when it is heard."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque(maxlen=LINES_TOLD)
        self._signs: deque[tuple[int, Sign]] = deque(maxlen=LINES_THAT_COUNT)
        self._count = 0
        self._steps = 0

    def add(self, line: str, sign: Sign | None) -> None:
        """Take down a line, and what it shows."""
        if sign is not None and of_a_handler(line):
            sign = self._before(sign)
        self.lines.append(line)
        self._count += not of_a_stack(line)
        if sign is not None:
            self._signs.append((self._count, sign))
            self._steps = 0
        elif self._signs and _STEP.match(line, begin_of(line)):
            self._steps += 1
            if self._steps >= STEPS_SURVIVED:
                self._signs.clear()

    def _before(self, sign: Sign) -> Sign | None:
        """Return what a handler's line shows: an effect of what showed, or of the last words."""
        if any(sign.shows != "effect" for sign in self.signs()):
            return None
        words = last_words(self.lines)
        line = sign.line if not words or _STEP.match(words, begin_of(words)) else words
        return replace(sign, line=line, of_a_signal=True)

    def signs(self) -> tuple[Sign, ...]:
        """Return what the last lines show, in the order in which they were written."""
        return tuple(sign for at, sign in self._signs if self._count - at < LINES_THAT_COUNT)


class FailureReport:
    """Hears all workers of one attempt.

    `at` is of the workers' clocks, made to agree; `now` is of the hearer's. Seconds. It waits
    `settle` seconds for a failure that explains the one that it has.
    """

    def __init__(self, signatures: tuple[Signature, ...] | Matcher, settle: float = 0.0) -> None:
        """Have heard nothing yet."""
        known = signatures if isinstance(signatures, Matcher) else matcher(signatures)
        self._matcher, self._settle = known, settle
        self._classifier = Classifier(self._matcher)
        self._tails: dict[int, _Tail] = defaultdict(_Tail)
        self._reports: dict[int, Failure] = {}
        self._hangs = False
        self._latest = 0.0
        self._since = 0.0

    @property
    def failed(self) -> AbstractSet[int]:
        """The workers that have failed."""
        return self._reports.keys()

    @property
    def hangs(self) -> bool:
        """Whether any of them hangs."""
        return self._hangs

    def hear(self, rank: int, line: str) -> None:
        """Keep a line among the last ones of worker `rank`, and what it shows."""
        self._tails[rank].add(line, self._matcher.in_line(line))

    def report(self, rank: int, failure: Failure, *, at: float | None, now: float) -> None:
        """Take down that worker `rank` failed, which showed at `at` and is heard of at `now`.

        Where nobody knows when it showed, it is taken to be later than all that is known. Only
        the first failure of a worker counts.
        """
        if rank in self._reports:
            return
        self._since = self._since if self._reports else now
        at = self._latest if at is None else at
        self._latest = max(self._latest, at)
        self._reports[rank] = failure
        self._hangs = self._hangs or failure.kind is FailureKind.HANG
        self._classifier.add(WorkerReport(failure=failure, at=at, signs=self._tails[rank].signs()))

    def verdict(self, now: float, *, all_known: bool) -> Failure | None:
        """Return the failure that caused the others, once it is known or no more will come."""
        if not self._reports:
            return None
        verdict = self._classifier.classification()
        if verdict.sure or all_known or now - self._since > self._settle:
            return self._with_lines(verdict.failure)
        return None

    def _with_lines(self, failure: Failure) -> Failure:
        """Return `failure` with the last lines of its worker below what it says itself."""
        rank = failure.rank or 0
        lines = tuple(self._tails[rank].lines)
        if not lines or failure.kind is FailureKind.CANCELLED:
            return failure
        excerpt = f"last lines of worker {rank}:\n" + "\n".join(lines)
        return replace(failure, detail=f"{failure.detail}\n\n{excerpt}".lstrip())
