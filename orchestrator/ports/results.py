"""The results of stages, kept for reuse under their cache keys."""

from __future__ import annotations

from typing import Protocol

from orchestrator.messages import Succeeded


class ResultCache(Protocol):
    """Memory of results. Raises `StoreError` for what the database refuses."""

    def remember(self, key: str, result: Succeeded, run: str) -> None:
        """Keep the result of a stage for reuse under its cache key."""
        ...

    def recall(self, key: str) -> tuple[Succeeded, str] | None:
        """Return a kept result and the run that made it."""
        ...
