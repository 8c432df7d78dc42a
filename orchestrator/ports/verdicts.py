"""How pools were judged before they are trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from orchestrator.core.trust.qualification import Verdict


class Verdicts(Protocol):
    """Memory of verdicts. Raises `StoreError` for what the database refuses."""

    def note_verdict(self, verdict: Verdict) -> None:
        """Keep a verdict on a pool as it is configured, in place of an earlier one."""
        ...

    def verdicts(self) -> Sequence[Verdict]:
        """Return the last verdict on each pool, by role and by how it is configured."""
        ...
