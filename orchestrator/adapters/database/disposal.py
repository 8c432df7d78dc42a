"""Runs that are over are forgotten: their rows in all tables, or those that only tell of them."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Table, delete, func, select

from orchestrator.adapters.database import schema
from orchestrator.adapters.database.schema import metadata
from orchestrator.adapters.database.transactions import Transactions

TOLD = (schema.points, schema.log_chunks)
TELLING = (*TOLD, schema.reports, schema.progress, schema.busy, schema.untold)


class SqlDisposal(Transactions):
    """The port `Disposal`."""

    def count_telling(self, run: str) -> int:
        """Return how many metric points and pieces of logs `run` has."""
        with self._reading() as connection:
            counts = (select(func.count()).where(t.c.run == run) for t in TOLD)
            return sum(connection.scalar(count) or 0 for count in counts)

    def forget_telling(self, run: str) -> int:
        """Forget metric points, log lines, reports and notes of `run`; return how many rows."""
        return self._forget(run, TELLING)

    def forget_results(self, run: str) -> int:
        """Let no result of `run` stand for a later stage; return how many did."""
        return self._forget(run, (schema.results,))

    def forget_run(self, run: str) -> int:
        """Forget `run`, all that is kept of it; return how many rows."""
        owning = [table for table in reversed(metadata.sorted_tables) if "run" in table.c]
        return self._forget(run, owning)

    def _forget(self, run: str, tables: Sequence[Table]) -> int:
        with self._writing() as connection:
            rows = (connection.execute(delete(t).where(t.c.run == run)).rowcount for t in tables)
            return sum(rows)
