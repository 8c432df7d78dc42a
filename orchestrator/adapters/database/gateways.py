"""Gateways: where they are, when they last showed life, and what each has counted.

Life is judged by the database's own clock: those of hosts differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import delete, select

from orchestrator.adapters.database.dialects import seconds_now
from orchestrator.adapters.database.schema import gateway_counts, gateways
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.endpoints.gateway_entry import Gateway

SECONDS_KEPT = 86_400.0  # the counts of a gateway that is gone: sums over all don't shrink


class SqlGateways(Transactions):
    """The port `GatewayStore`."""

    def note_gateway(self, gateway: Gateway) -> None:
        """Note that a gateway lives."""
        now = seconds_now(self._reader)
        place = {"url": gateway.url, "host": gateway.host, "pid": gateway.pid}
        row = {**place, "cluster": gateway.cluster}
        added = self._insert(gateways).values(name=gateway.name, **row, since=now, seen=now)
        kept = added.on_conflict_do_update(index_elements=["name"], set_={**row, "seen": now})
        with self._writing() as connection:
            connection.execute(kept)

    def drop_gateway(self, name: str) -> None:
        """Note that a gateway has ended; forget those that ended long ago, with their counts."""
        late = seconds_now(self._reader) - SECONDS_KEPT
        with self._writing() as connection:
            connection.execute(delete(gateways).where(gateways.c.name == name))
            connection.execute(delete(gateways).where(gateways.c.seen < late))
            connection.execute(delete(gateway_counts).where(gateway_counts.c.at < late))

    def gateways(self) -> Sequence[Gateway]:
        """Return all gateways that have not ended by themselves, the oldest first."""
        silent = (seconds_now(self._reader) - gateways.c.seen).label("silent")
        query = select(gateways, silent).order_by(gateways.c.since, gateways.c.name)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        return [
            Gateway(
                name=row.name,
                url=row.url,
                host=row.host,
                pid=row.pid,
                cluster=row.cluster,
                since=row.since,
                silent=max(row.silent, 0.0),
            )
            for row in rows
        ]

    def note_counts(self, gateway: str, counts: Mapping[str, str]) -> None:
        """Keep what a gateway has counted so far, by endpoint, in Prometheus' text format."""
        now = seconds_now(self._reader)
        insert = self._insert(gateway_counts)
        with self._writing() as connection:
            for endpoint, body in counts.items():
                added = insert.values(gateway=gateway, endpoint=endpoint, body=body, at=now)
                connection.execute(
                    added.on_conflict_do_update(
                        index_elements=["gateway", "endpoint"], set_={"body": body, "at": now}
                    )
                )

    def counts(self, endpoint: str) -> Mapping[str, str]:
        """Return what each gateway has counted of an endpoint, those that are gone too."""
        query = select(gateway_counts.c.gateway, gateway_counts.c.body)
        with self._reading() as connection:
            rows = connection.execute(query.where(gateway_counts.c.endpoint == endpoint)).all()
        return {row.gateway: row.body for row in rows}
