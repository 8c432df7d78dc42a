"""What runs wait for pools, and which pools and nodes are not to be used."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields

from sqlalchemy import delete, func, or_, select

from orchestrator.adapters.database.dialects import seconds_now
from orchestrator.adapters.database.schema import drains, queues, unused_nodes
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.messages import Queued, UnusedNode


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

    def queue(self, seconds: float, pools: Collection[str] | None = None) -> Sequence[Queued]:
        """Return what all runs wait for that said so in the last `seconds`; of some `pools`."""
        recent = func.abs(seconds_now(self._reader) - queues.c.at) <= seconds
        wanted = select(*(queues.c[part.name] for part in fields(Queued))).where(recent)
        if pools is not None:
            wanted = wanted.where(queues.c.pool.in_(pools))
        with self._reading() as connection:
            rows = connection.execute(wanted).all()
        return [Queued(**row._asdict()) for row in rows]

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

    def quarantine(self, pool: str, node: str, reason: str, seconds: float) -> None:
        """Have a node not used for so many seconds, unless it is to be used even less."""
        until = self.now() + seconds
        values = {"reason": reason, "until": until}
        added = self._insert(unused_nodes).values(pool=pool, node=node, **values)
        sooner = unused_nodes.c.until < until  # of one that somebody drains there is no end
        with self._writing() as connection:
            connection.execute(
                added.on_conflict_do_update(
                    index_elements=["pool", "node"], set_=values, where=sooner
                )
            )

    def drain_node(self, pool: str, node: str, reason: str) -> None:
        """Note that a node is to be emptied. Safe to call twice; the last reason stays."""
        self._note(unused_nodes, pool=pool, node=node, reason=reason, until=None)

    def release_node(self, pool: str, node: str) -> None:
        """Note that a node is to be used again. Safe to call twice."""
        of_node = (unused_nodes.c.pool == pool) & (unused_nodes.c.node == node)
        with self._writing() as connection:
            connection.execute(delete(unused_nodes).where(of_node))

    def unused_nodes(self) -> Sequence[UnusedNode]:
        """Return the nodes that are not to be used now."""
        until = unused_nodes.c.until
        lasts = or_(until.is_(None), until > seconds_now(self._reader))
        order = (unused_nodes.c.pool, unused_nodes.c.node)
        with self._reading() as connection:
            rows = connection.execute(select(unused_nodes).where(lasts).order_by(*order)).all()
        return [
            UnusedNode(pool=row.pool, node=row.node, reason=row.reason, until=row.until)
            for row in rows
        ]
