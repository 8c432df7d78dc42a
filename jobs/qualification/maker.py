"""The diagnostic of the chip's maker, run on each node where it is installed."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from jobs.program import run
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench

CHECK = "maker's diagnostic"
SECONDS = 100.0  # less than a worker may be silent for
_SHOWN = 160  # characters of what it says


def check_maker(bench: Bench, command: Sequence[str], failed: str) -> None:
    """Run `command`, and fail where what it prints matches the regular expression `failed`.

    Where that is empty, fail where the command does.

    One that can't be run to its end is a limit: it says nothing of the chips, and nobody knows.
    """
    subject = command[0] if command else "none"
    if not command or not bench.real:
        why = "the chip is emulated" if command else "none is known for this chip"
        bench.say(CHECK, subject, SKIPPED, note=why)
        return
    status, note = diagnosed(command, failed)
    bench.say(CHECK, subject, status, note=note)


def diagnosed(command: Sequence[str], failed: str) -> tuple[str, str]:
    """Return the status that a diagnostic gives, and what there is to know."""
    if shutil.which(command[0]) is None:
        return SKIPPED, f"{command[0]!r} is not installed"
    try:
        code, text = run(command, seconds=SECONDS)
    except subprocess.TimeoutExpired:
        return LIMITED, f"did not end within {SECONDS:g} s"
    said = " ".join(text.split())
    match = re.search(failed, said) if failed else None
    if match:
        begin = max(match.start() - _SHOWN, 0)
        return FAILED, said[begin : match.end() + _SHOWN]
    if code:  # without an expression the status is all there is to judge by
        ended = f"ended with {code}: {said[-_SHOWN:] or 'no word'}"
        return LIMITED if failed else FAILED, ended
    return PASSED, ""
