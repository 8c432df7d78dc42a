"""What people ask of a run while it goes on: to pass a gate, to end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Interventions(Protocol):
    """Memory of what was asked. Raises `StoreError` for what the database refuses."""

    def approve(self, run: str, stage: str, by: str) -> None:
        """Note that `by` approves `stage` of `run`. Raises `NotFoundError` for no such run."""
        ...

    def approvals(self, run: str) -> Mapping[str, str]:
        """Return who approved which stages of `run`."""
        ...

    def request_cancel(self, run: str) -> None:
        """Ask whoever controls `run` to cancel it. Safe to call twice."""
        ...

    def withdraw_cancel(self, run: str) -> None:
        """Take back that `run` shall be cancelled: it is to go on after all."""
        ...

    def cancel_requested(self, run: str) -> bool:
        """Whether somebody asked for `run` to be cancelled."""
        ...
