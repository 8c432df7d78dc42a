"""The processes that this session of tests has started, and no others of the machine.

Another session may run beside it, with replicas and engines of the same names. All that a session
starts inherits its mark, also where the parent has gone; engines, which inherit nothing of ours,
have `SESSION` on their command line.
"""

from __future__ import annotations

import os
from contextlib import suppress

import psutil

MARK = "ORCHESTRATOR_TESTS"
SESSION = f"tests-{os.getpid()}"


def marked(word: str) -> list[psutil.Process]:
    """Return those with the mark of this session that have `word` on their command line."""
    mark, found = os.environ[MARK], []  # noqa: TID251 - the session's own
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if word in " ".join(process.cmdline()) and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def engines(script: str) -> list[psutil.Process]:
    """Return those that run `script` and were started with `SESSION` as one of their words."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if {script, SESSION} <= set(process.cmdline()):
                found.append(process)
    return found
