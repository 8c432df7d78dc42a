"""Reads the logs of a run as they were written, from the database and from pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from orchestrator.core.errors import ArtifactError
from orchestrator.error_boundary import reason
from orchestrator.ports import ArtifactStore, LogChunk, OutputStore


class OutputReader:
    """What the attempts of `run` have written, whoever drove them.

    A page that can't be read is a line that says why.
    """

    def __init__(
        self, store: OutputStore, artifacts: Callable[[], ArtifactStore], run: str
    ) -> None:
        """Read nothing yet; the artifact store is opened for the first page."""
        self._store, self._artifacts, self.run = store, artifacts, run

    def chunks(self, after: int = 0, stage: str | None = None) -> Iterator[LogChunk]:
        """Yield the chunks with an id above `after`, oldest first."""
        for chunk in self._store.log_chunks(self.run, after, stage):
            yield from (part for part in self._unfolded(chunk) if part.id > after)

    def newest(self, stage: str | None = None, attempt: int | None = None) -> Iterator[LogChunk]:
        """Yield the chunks, newest first."""
        for chunk in reversed(self._store.log_chunks(self.run, stage=stage, attempt=attempt)):
            yield from reversed(self._unfolded(chunk))

    def tail(self, stage: str, attempt: int, size: int) -> str:
        """Return about the last `size` characters of an attempt's log, whole lines."""
        texts: list[str] = []
        chunks, left = self.newest(stage, attempt), size
        while left > 0 and (chunk := next(chunks, None)):
            texts.append(chunk.text)
            left -= len(chunk.text)
        text = "".join(reversed(texts))
        return text if left >= 0 else text[text.find("\n", len(text) - size - 1) + 1 :]

    def ends(self) -> Mapping[tuple[str, int], int]:
        """Return a number for each attempt's log, by stage and number: it grows with the log."""
        return self._store.log_ends(self.run)

    def reports(self, stage: str, attempt: int) -> Mapping[str, str]:
        """Return the reports of an attempt by their names, in order."""
        return self._store.reports(self.run, stage, attempt)

    def _unfolded(self, chunk: LogChunk) -> Sequence[LogChunk]:
        """Return the chunks of a page; any other chunk as it is."""
        if not chunk.page:
            return (chunk,)
        try:
            text = self._artifacts().marked(chunk.page)
            lacking = "" if text else "it is gone"
        except ArtifactError as error:
            text, lacking = "", reason(error)
        if not text:
            what = f"{chunk.page!r} of the artifact store, a part of this log, can't be read here"
            return (replace(chunk, page="", text=f"{what}: {lacking}\n"),)
        lines = map(json.loads, text.split("\n"))
        return [replace(chunk, page="", **line) for line in lines]
