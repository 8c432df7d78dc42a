"""What attempts print, report and have done so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

from sqlalchemy import delete, func, select, update

from orchestrator.adapters.database import schema
from orchestrator.adapters.database.dialects import BulkInsert
from orchestrator.adapters.database.schema import log_chunks
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.text import valid
from orchestrator.messages import Progress
from orchestrator.ports import LogChunk

_COLUMNS = ("run", "stage", "attempt", "at", "text", "page")


class SqlOutput(Transactions):
    """The port `OutputStore`."""

    def add_log(self, run: str, chunks: Sequence[LogChunk]) -> None:
        """Commit chunks; one of the same attempt and time is not added again."""
        rows = [(run, c.stage, c.attempt, c.at, valid(c.text), c.page) for c in chunks]
        if rows:
            with self._writing() as connection:
                self._chunks.into(connection, rows)

    def log_chunks(
        self, run: str, after: int = 0, stage: str | None = None, attempt: int | None = None
    ) -> Sequence[LogChunk]:
        """Return the chunks of `run` with an id above `after`, by id."""
        wanted = (log_chunks.c.run == run) & (log_chunks.c.id > after)
        if stage is not None:
            wanted &= log_chunks.c.stage == stage
        if attempt is not None:
            wanted &= log_chunks.c.attempt == attempt
        query = select(log_chunks).where(wanted).order_by(log_chunks.c.id)
        with self._reading() as connection:
            return [
                LogChunk(
                    id=r.id, stage=r.stage, attempt=r.attempt, at=r.at, text=r.text, page=r.page
                )
                for r in connection.execute(query)
            ]

    def log_ends(self, run: str) -> Mapping[tuple[str, int], int]:
        """Return the id of the last chunk of each attempt, by stage and number."""
        place = (log_chunks.c.stage, log_chunks.c.attempt)
        query = select(*place, func.max(log_chunks.c.id)).where(log_chunks.c.run == run)
        with self._reading() as connection:
            rows = connection.execute(query.group_by(*place))
            return {(stage, attempt): last for stage, attempt, last in rows}

    def page_log(self, run: str, page: LogChunk) -> None:
        """Let `page` stand for the chunk with its id, and for the attempt's chunks before that."""
        mine = (
            (log_chunks.c.run == run)
            & (log_chunks.c.stage == page.stage)
            & (log_chunks.c.attempt == page.attempt)
        )
        before = mine & (log_chunks.c.id < page.id) & (log_chunks.c.page == "")
        stands = update(log_chunks).where(mine & (log_chunks.c.id == page.id))
        with self._writing() as connection:
            connection.execute(delete(log_chunks).where(before))
            connection.execute(stands.values(text="", page=page.page))

    def note_report(self, run: str, place: tuple[str, int], name: str, text: str) -> None:
        """Keep a report of an attempt (stage, number), over one of the same name."""
        stage, attempt = place
        row = {"stage": stage, "attempt": attempt, "name": valid(name), "text": valid(text)}
        self._note(schema.reports, run=run, **row)

    def reports(self, run: str, stage: str, attempt: int) -> Mapping[str, str]:
        """Return the reports of an attempt by their names, in order."""
        table = schema.reports
        mine = (table.c.run == run) & (table.c.stage == stage) & (table.c.attempt == attempt)
        query = select(table.c.name, table.c.text).where(mine).order_by(table.c.name)
        with self._reading() as connection:
            return {row.name: row.text for row in connection.execute(query)}

    def note_progress(self, run: str, place: tuple[str, int], progress: Progress) -> None:
        """Keep how far an attempt (stage, number) is."""
        stage, attempt = place
        done = {"done": progress.done, "total": progress.total}
        self._note(schema.progress, run=run, stage=stage, attempt=attempt, **done)

    def progress(self, run: str) -> Mapping[tuple[str, int], Progress]:
        """Return how far the attempts are that say so, by stage and number."""
        query = select(schema.progress).where(schema.progress.c.run == run)
        with self._reading() as connection:
            rows = connection.execute(query)
            return {(r.stage, r.attempt): Progress(r.done, r.total) for r in rows}

    @cached_property
    def _chunks(self) -> BulkInsert:
        return BulkInsert(self._reader, log_chunks, _COLUMNS)
