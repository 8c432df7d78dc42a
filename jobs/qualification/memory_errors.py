"""The errors of memory that a chip has counted itself, before the checks and after them.

A chip corrects an error of one bit without a word: no check of results sees it, and the next may
be of two bits. The maker's tool tells the counters of a node's chips; which command that is, and
by what expression its words are read, are facts of the accelerator.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from jobs.program import run
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench

CHECK = "memory errors"
SECONDS = 60.0  # less than a worker may be silent for
_SHOWN = 160  # characters of what it says
_UNKNOWN = "nobody tells how many there were: no command is known that tells those of this chip"


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """How many errors the chips of a node have counted so far."""

    corrected: int = 0
    uncorrected: int = 0


class UnknownCountsError(Exception):
    """Nobody tells the counters; the message says why."""


@contextmanager
def watched(bench: Bench, command: Sequence[str], pattern: str) -> Iterator[None]:
    """Look at the counters of this node before and after the checks within; say what came.

    One worker of a node looks. `pattern` is an expression with groups `corrected` and
    `uncorrected`, whose matches are added up.
    """
    if bench.ctx.local_rank:
        yield
        return
    if not command or not bench.real:
        yield
        status, note = (LIMITED, _UNKNOWN) if bench.real else (SKIPPED, "the chip is emulated")
        bench.say(CHECK, "counters", status, note=note)
        return
    before = _counts_or_reason(command, pattern)
    yield
    status, note = judged(before, _counts_or_reason(command, pattern))
    bench.say(CHECK, "counters", status, note=note)


def counted(command: Sequence[str], pattern: str) -> ErrorCounts:
    """Return what the maker's tool tells.

    Raises:
        UnknownCountsError: It is not there, fails, or says nothing that `pattern` matches.
    """
    if shutil.which(command[0]) is None:
        raise UnknownCountsError(f"{command[0]!r} is not installed")
    try:
        code, text = run(command, seconds=SECONDS)
    except subprocess.TimeoutExpired:
        raise UnknownCountsError(f"{command[0]!r} did not end within {SECONDS:g} s") from None
    said = " ".join(text.split())[-_SHOWN:] or "no word"
    if code:
        raise UnknownCountsError(f"{command[0]!r} ended with {code}: {said}")
    matches = [match.groupdict(default="0") for match in re.finditer(pattern, text)]
    if not matches:
        raise UnknownCountsError(f"{command[0]!r} tells no counters: {said}")
    return ErrorCounts(
        *(
            sum(int(counts.get(kind, 0)) for counts in matches)
            for kind in ("corrected", "uncorrected")
        )
    )


def judged(before: ErrorCounts | str, after: ErrorCounts | str) -> tuple[str, str]:
    """Return the status that follows from the counters, or from why they are not known."""
    for unknown in (before, after):
        if isinstance(unknown, str):
            return LIMITED, f"nobody tells how many there were: {unknown}"
    assert isinstance(before, ErrorCounts)  # noqa: S101 - the others are gone
    assert isinstance(after, ErrorCounts)  # noqa: S101 - as above
    corrected, fatal = after.corrected - before.corrected, after.uncorrected - before.uncorrected
    if fatal > 0:
        return FAILED, f"{fatal} that can't be corrected, and {max(corrected, 0)} that can"
    if corrected > 0:
        return LIMITED, f"{corrected} that were corrected while the checks ran"
    if after.uncorrected:
        return LIMITED, f"{after.uncorrected} that can't be corrected, before the checks began"
    return PASSED, ""


def _counts_or_reason(command: Sequence[str], pattern: str) -> ErrorCounts | str:
    try:
        return counted(command, pattern)
    except UnknownCountsError as error:
        return str(error)
