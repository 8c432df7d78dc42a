"""Looks whether what a stage waits for is there: a file, a count of lines, a URL, an approval."""

from __future__ import annotations

import glob
import urllib.error
import urllib.request
from pathlib import Path

from orchestrator.core.spec.policy import Gate
from orchestrator.ports import Interventions

URL_SECONDS = 2.0


class OutsideGates:
    """The port `Gates`: files of this machine, addresses of one's own, approvals of the store."""

    def __init__(self, interventions: Interventions) -> None:
        """Look approvals up there."""
        self._interventions = interventions

    def look(self, gate: Gate, run: str, stage: str) -> str | None:
        """Return what opens the gate of `stage`, in words, or `None` while it is shut."""
        if gate.kind == "approval":
            who = self._interventions.approvals(run).get(stage)
            return f"approved by {who}" if who else None
        if gate.kind == "url":
            return f"{gate.target} answers" if _answers(gate.target) else None
        paths = [Path(path) for path in sorted(glob.glob(gate.target, recursive=True))]  # noqa: PTH207 - the pattern may be absolute
        if gate.kind == "file":
            return f"{paths[0]} is there" if paths else None
        count = sum(map(_lines, paths))
        return f"{count} lines are there" if count >= gate.least else None


def _answers(url: str) -> bool:
    """Return whether `url`, whose scheme the plan has checked, answers with success."""
    try:
        with urllib.request.urlopen(url, timeout=URL_SECONDS) as answer:  # noqa: S310 - see above
            return bool(200 <= answer.status < 300)  # noqa: PLR2004 - HTTP's own
    except (OSError, ValueError):
        return False


def _lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0
