"""What endpoints were used for: sums by day, which each gateway adds to in rows of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Table, func, select

from orchestrator.adapters.database.schema import held, usage
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.endpoints.metering import Occupancy, Usage


class SqlUsage(Transactions):
    """The port `UsageStore`."""

    def add_usage(
        self, gateway: str, usages: Sequence[Usage], held_now: Sequence[Occupancy]
    ) -> None:
        """Add to what `gateway` has noted, all or nothing."""
        with self._writing() as connection:
            for used in usages:
                self._add(connection, usage, {"gateway": gateway, **asdict(used)})
            for part in held_now:
                self._add(connection, held, {"gateway": gateway, **asdict(part)})

    def usage(self, since: str) -> Sequence[Usage]:
        """Return what all gateways together noted from the day `since` on."""
        places = [usage.c[name] for name in ("day", "key", "endpoint", "revision", "pool")]
        sums = [func.sum(usage.c[name]).label(name) for name in _sums(usage)]
        query = select(*places, *sums).where(usage.c.day >= since).group_by(*places)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(*places)).all()
        return [_usage(row) for row in rows]

    def occupancy(self, since: str) -> Sequence[Occupancy]:
        """Return what was held from the day `since` on: what the gateway that saw most saw."""
        places = [held.c[name] for name in ("day", "endpoint", "pool")]
        most = [func.max(held.c[name]).label(name) for name in _sums(held)]
        query = select(*places, *most).where(held.c.day >= since).group_by(*places)
        with self._reading() as connection:
            rows = connection.execute(query.order_by(*places)).all()
        return [Occupancy(**row._asdict()) for row in rows]

    def spent(self, since: str) -> Mapping[str, float]:
        """Return US dollars by name of the key, of all gateways, from the day `since` on."""
        query = select(usage.c.key, func.sum(usage.c.cost)).where(usage.c.day >= since)
        with self._reading() as connection:
            rows = connection.execute(query.group_by(usage.c.key)).all()
        return {row[0]: float(row[1]) for row in rows}

    def used_elsewhere(self, gateway: str, since: str) -> Mapping[str, tuple[int, int]]:
        """Return requests and tokens by name of the key that gateways but this one noted."""
        tokens = func.sum(usage.c.prompt_tokens + usage.c.completion_tokens)
        query = select(usage.c.key, func.sum(usage.c.requests), tokens)
        others = (usage.c.day >= since) & (usage.c.gateway != gateway)
        with self._reading() as connection:
            rows = connection.execute(query.where(others).group_by(usage.c.key)).all()
        return {name: (int(requests), int(count)) for name, requests, count in rows}

    def _add(self, connection: Connection, table: Table, row: Mapping[str, object]) -> None:
        added = self._insert(table).values(**row)
        sums = {name: table.c[name] + added.excluded[name] for name in _sums(table)}
        keys = [column.name for column in table.primary_key]
        connection.execute(added.on_conflict_do_update(index_elements=keys, set_=sums))


def _sums(table: Table) -> list[str]:
    return [column.name for column in table.columns if not column.primary_key]


def _usage(row: Any) -> Usage:  # noqa: ANN401 - a row of SQLAlchemy
    """Return a row as what it says; PostgreSQL sums whole numbers to decimals."""
    counts = {
        "requests": int(row.requests),
        "prompt_tokens": int(row.prompt_tokens),
        "completion_tokens": int(row.completion_tokens),
    }
    return Usage(**{**row._asdict(), **counts})
