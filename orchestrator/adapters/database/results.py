"""The results of stages, kept for reuse."""

from __future__ import annotations

from sqlalchemy import select

from orchestrator.adapters.database import codec
from orchestrator.adapters.database.schema import results
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.messages import Succeeded


class SqlResultCache(Transactions):
    """The port `ResultCache`."""

    def remember(self, key: str, result: Succeeded, run: str) -> None:
        """Keep the result of a stage for reuse under its cache key; the latest one stays."""
        row = {"run": run, "body": codec.dump(result)}
        added = self._insert(results).values(key=key, **row)
        with self._writing() as connection:
            connection.execute(added.on_conflict_do_update(index_elements=["key"], set_=row))

    def recall(self, key: str) -> tuple[Succeeded, str] | None:
        """Return a kept result and the run that made it."""
        with self._reading() as connection:
            row = connection.execute(select(results).where(results.c.key == key)).one_or_none()
        if row is None:
            return None
        return codec.load(Succeeded, row.body, f"result {key!r} of run {row.run!r}"), row.run
