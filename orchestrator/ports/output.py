"""What the attempts of all runs print, report and have done so far, whoever drives them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.messages import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class LogChunk:
    """Whole lines of an attempt that were written together, at `at` (seconds, epoch).

    `id` grows over the whole store; 0 while it is not stored. A chunk without text names a `page`:
    the mark in the artifact store that has the attempt's chunks up to this one.
    """

    stage: str
    attempt: int
    at: float
    text: str = ""
    id: int = 0
    page: str = ""


class OutputStore(Protocol):
    """Memory of the output of attempts. Raises `StoreError` for what the database refuses."""

    def add_log(self, run: str, chunks: Sequence[LogChunk]) -> None:
        """Commit chunks; one of the same attempt and time is not added again."""
        ...

    def log_chunks(
        self, run: str, after: int = 0, stage: str | None = None, attempt: int | None = None
    ) -> Sequence[LogChunk]:
        """Return the chunks of `run` with an id above `after`, by id."""
        ...

    def log_ends(self, run: str) -> Mapping[tuple[str, int], int]:
        """Return the id of the last chunk of each attempt, by stage and number."""
        ...

    def page_log(self, run: str, page: LogChunk) -> None:
        """Let `page` stand for the chunk with its id, and for the attempt's chunks before that."""
        ...

    def note_report(self, run: str, place: tuple[str, int], name: str, text: str) -> None:
        """Keep a report of an attempt (stage, number), over one of the same name."""
        ...

    def reports(self, run: str, stage: str, attempt: int) -> Mapping[str, str]:
        """Return the reports of an attempt by their names, in order."""
        ...

    def note_progress(self, run: str, place: tuple[str, int], progress: Progress) -> None:
        """Keep how far an attempt (stage, number) is."""
        ...

    def progress(self, run: str) -> Mapping[tuple[str, int], Progress]:
        """Return how far the attempts are that say so, by stage and number."""
        ...
