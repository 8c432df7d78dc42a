"""What runs wait for pools, and which pools are to be emptied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, func, select

from orchestrator.adapters.database.dialects import seconds_now
from orchestrator.adapters.database.schema import drains, queues
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.messages import Queued


class SqlQueues(Transactions):
    """The port `Queues`."""

    def queue_up(self, run: str, entries: Sequence[Queued]) -> None:
        """Make `entries` what `run` waits for as of now, instead of before."""
        at = self.now()
        rows = [
            {
                "run": run,
                "stage": entry.stage,
                "pool": entry.pool,
                "priority": entry.priority,
                "since": entry.since,
                "devices": entry.devices,
                "at": at,
            }
            for entry in entries
        ]
        self._renew(queues, run, rows)

    def queue(self, seconds: float) -> Sequence[Queued]:
        """Return what all runs wait for that said so in the last `seconds`."""
        recent = func.abs(seconds_now(self._reader) - queues.c.at) <= seconds
        with self._reading() as connection:
            rows = connection.execute(select(queues).where(recent)).all()
        return [
            Queued(
                pool=row.pool,
                run=row.run,
                stage=row.stage,
                priority=row.priority,
                since=row.since,
                devices=row.devices,
            )
            for row in rows
        ]

    def drain(self, pool: str, reason: str) -> None:
        """Note that `pool` is to be emptied. Safe to call twice; the last reason stays."""
        self._note(drains, pool=pool, reason=reason)

    def undrain(self, pool: str) -> None:
        """Note that `pool` is to be used again. Safe to call twice."""
        with self._writing() as connection:
            connection.execute(delete(drains).where(drains.c.pool == pool))

    def drained(self) -> Mapping[str, str]:
        """Return the pools that are to be emptied, with the reasons."""
        with self._reading() as connection:
            return {row.pool: row.reason for row in connection.execute(select(drains))}
