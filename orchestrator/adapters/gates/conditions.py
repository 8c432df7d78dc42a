"""Looks whether what a stage waits for is there: a file, a count of lines, a URL, an approval.

Each gate has a thread of its own while it is looked at: one that hangs holds up nobody, and is not
looked at again before it has answered.
"""

from __future__ import annotations

import logging
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import TypeAlias

from orchestrator.adapters.gates.files import (
    Files,
    LineCounter,
    LocalFiles,
    OpenFiles,
    RemoteFiles,
)
from orchestrator.core.spec.policy import Gate
from orchestrator.error_boundary import Outcome, outcome, reason
from orchestrator.ports import Interventions

logger = logging.getLogger(__name__)

SECONDS_TO_ANSWER = 0.2  # at once; what takes longer is asked for at a later look
_FILE = "file://"
_Check: TypeAlias = Callable[[], str | None]


class GateConditions:
    """The port `Gates`: files, addresses of one's own, approvals of the store."""

    def __init__(
        self,
        interventions: Interventions,
        open_files: OpenFiles,
        patience: float = SECONDS_TO_ANSWER,
    ) -> None:
        """Look approvals up there, and files by `open_files`; wait `patience` seconds for them."""
        self._interventions = interventions
        self._open_files, self._patience = open_files, patience
        self._watched: dict[tuple[str, str, Gate], _Watched] = {}

    def opened_by(self, gate: Gate, run: str, stage: str) -> str | None:
        """Return what opens the gate of `stage`, in words, or `None` while it is shut."""
        if gate.kind == "approval":
            who = self._interventions.approvals(run).get(stage)
            return f"approved by {who}" if who else None
        key = (run, stage, gate)
        if key not in self._watched:
            self._watched[key] = _Watched(gate.target, self._check_of(gate))
        opened = self._watched[key].opened_by(self._patience)
        if opened is not None:
            del self._watched[key]
        return opened

    def _check_of(self, gate: Gate) -> _Check:
        """Return what looks at `gate`, and remembers what it has read."""
        target = gate.target
        if gate.kind == "url":
            return lambda: f"{target} answers" if _answers(target, gate.timeout) else None
        open_files, counter = self._open_files, LineCounter()
        opened: list[Files] = []

        def check() -> str | None:
            if not opened:
                opened.append(_files(target, open_files))
            files = opened[0]
            if gate.kind == "file":
                first = next(iter(files.matching()), None)
                return None if first is None else f"{first} is there"
            count = counter.count(files)
            return f"{count} lines are there" if count >= gate.least else None

        return check


class _Watched:
    """A gate that is looked at, in a thread of its own."""

    def __init__(self, target: str, check: _Check) -> None:
        """Have looked at nothing yet."""
        self._target, self._check = target, check
        self._answer: list[Outcome[str | None]] = []
        self._thread: threading.Thread | None = None
        self._refused = ""

    def opened_by(self, patience: float) -> str | None:
        """Return what opens it, where that is known within `patience` seconds."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._ask, name="gate", daemon=True)
            self._thread.start()
            self._thread.join(patience)
        if self._thread.is_alive():
            return None
        self._thread = None
        answer = self._answer.pop()
        self._tell(answer.error)
        return answer.value

    def _ask(self) -> None:
        self._answer.append(outcome(self._check, but=()))

    def _tell(self, error: Exception | None) -> None:
        """Say once why it can't be looked at, and again where that changes."""
        why = "" if error is None else reason(error)
        if why and why != self._refused:
            logger.warning("gate %r can't be looked at: %s", self._target, why)
        self._refused = why


def _files(target: str, open_files: OpenFiles) -> Files:
    if "://" in target and not target.startswith(_FILE):
        return RemoteFiles(target, open_files)
    return LocalFiles(target.removeprefix(_FILE))


def _answers(url: str, seconds: float) -> bool:
    """Return whether `url`, whose scheme the plan has checked, answers with success in time."""
    try:
        with urllib.request.urlopen(url, timeout=seconds) as answer:  # noqa: S310 - see above
            return bool(200 <= answer.status < 300)  # noqa: PLR2004 - HTTP's own
    except (OSError, ValueError):
        return False
