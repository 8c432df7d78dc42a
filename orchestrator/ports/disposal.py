"""What is forgotten of runs that are over."""

from __future__ import annotations

from typing import Protocol


class Disposal(Protocol):
    """Memory that can be told to forget. Raises `StoreError` for what the database refuses."""

    def count_telling(self, run: str) -> int:
        """Return how many metric points and pieces of logs `run` has."""
        ...

    def forget_telling(self, run: str) -> int:
        """Forget metric points, log lines, reports and notes of `run`; return how many rows."""
        ...

    def forget_results(self, run: str) -> int:
        """Let no result of `run` stand for a later stage; return how many did."""
        ...

    def forget_run(self, run: str) -> int:
        """Forget `run`, all that is kept of it; return how many rows."""
        ...
