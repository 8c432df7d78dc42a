"""What controllers said last of their runs."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from orchestrator.adapters.database import schema
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.messages import Busy, Untold


class SqlRunNotes(Transactions):
    """The port `RunNotes`."""

    def note_untold(self, run: str, untold: Sequence[Untold]) -> None:
        """Keep what could not be told of `run`, over what was kept of it before."""
        rows = [
            {"run": run, "what": note.what, "times": note.count, "reason": note.reason}
            for note in untold
        ]
        self._renew(schema.untold, run, rows)

    def untold(self, run: str) -> Sequence[Untold]:
        """Return what could not be told of `run`."""
        query = (
            select(schema.untold).where(schema.untold.c.run == run).order_by(schema.untold.c.what)
        )
        with self._reading() as connection:
            return [Untold(r.what, r.times, r.reason) for r in connection.execute(query)]

    def note_busy(self, run: str, busy: Sequence[Busy]) -> None:
        """Keep what the attempts of `run` are busy with, over what was kept of it before."""
        rows = [
            {
                "run": run,
                "stage": note.stage,
                "attempt": note.attempt,
                "what": note.what,
                "since": note.since,
            }
            for note in busy
        ]
        self._renew(schema.busy, run, rows)

    def busy(self, run: str) -> Sequence[Busy]:
        """Return what the attempts of `run` are busy with, as was said last."""
        query = (
            select(schema.busy)
            .where(schema.busy.c.run == run)
            .order_by(schema.busy.c.stage, schema.busy.c.attempt)
        )
        with self._reading() as connection:
            return [Busy(r.stage, r.attempt, r.what, r.since) for r in connection.execute(query)]
