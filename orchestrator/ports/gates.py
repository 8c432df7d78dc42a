"""Whether what stages wait for is there."""

from __future__ import annotations

from typing import Protocol

from orchestrator.core.spec.policy import Gate


class Gates(Protocol):
    """Looks whether what stages wait for is there."""

    def opened_by(self, gate: Gate, run: str, stage: str) -> str | None:
        """Return what opens the gate of `stage`, in words, or `None` while it is shut.

        Never raises, and blocks for a second or two at most: what can't be looked at is shut.
        """
        ...
