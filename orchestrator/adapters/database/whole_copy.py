"""Copies a whole database into an empty one, all rows or none.

While it does so nothing is written to a source that is SQLite. Numbers of rows stay as they are,
and the target counts on after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, func, select, text

from orchestrator.adapters.database.dialects import POSTGRESQL, seconds_now
from orchestrator.adapters.database.schema import leases, log_chunks, metadata, points
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.errors import HeldError, NotFoundError, StoreError
from orchestrator.core.text import valid

AT_ONCE = 1000
STREAMED = {"stream_results": True}  # PostgreSQL would send all of a table at once
SECONDS_OF_DOUBT = 30.0  # after which a controller that was not heard is gone
NUMBERED = (points, log_chunks)
COUNT_ON = (
    "SELECT setval(pg_get_serial_sequence('{0}', 'id'), coalesce(max(id), 0) + 1, false) FROM {0}"
)


def copy(source: str | Path, target: str | Path) -> Mapping[str, int]:
    """Copy all rows of all tables; return how many, by table.

    Raises:
        NotFoundError: There is no such file.
        HeldError: A run has a controller that lives.
        StoreError: The target isn't empty, or takes something not as it is.
    """
    if isinstance(source, Path) and not source.exists():
        raise NotFoundError(f"there is no database {str(source)!r}")
    old, new = Transactions(source), Transactions(target)
    try:
        with old.writing() as reading, new.writing() as writing:
            _check_idle(reading, old)
            _check_empty(writing)
            return _copy_all(reading, writing)
    finally:
        old.close()
        new.close()


def _check_idle(connection: Connection, database: Transactions) -> None:
    age = func.abs(seconds_now(database.engine) - leases.c.at)
    held = select(leases.c.run).where(age < SECONDS_OF_DOUBT).order_by(leases.c.run)
    live = connection.scalars(held).all()
    if live:
        what = f"run {live[0]!r} has a controller that lives"
        raise HeldError(f"{what}; `orchestrator down` has it leave, and `resume` goes on then")


def _check_empty(connection: Connection) -> None:
    for table in metadata.sorted_tables:
        count = connection.scalar(select(func.count()).select_from(table))
        if count:
            what = f"the target is not empty: its table {table.name!r} has {count} rows"
            raise StoreError(f"{what}; name an empty database")


def _copy_all(old: Connection, new: Connection) -> Mapping[str, int]:
    counts = {table.name: _copy(table, old, new) for table in metadata.sorted_tables}
    if new.dialect.name == POSTGRESQL:
        for table in NUMBERED:
            new.execute(text(COUNT_ON.format(table.name)))
    return counts


def _copy(table: Table, old: Connection, new: Connection) -> int:
    count = 0
    for rows in old.execute(select(table), execution_options=STREAMED).partitions(AT_ONCE):
        new.execute(table.insert(), [dict(_valid(row._asdict())) for row in rows])
        count += len(rows)
    arrived = new.scalar(select(func.count()).select_from(table))
    if arrived != count:
        message = f"of {count} rows of table {table.name!r} {arrived} arrived; nothing was copied"
        raise StoreError(message)
    return count


def _valid(row: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Yield the columns of a row, text as PostgreSQL takes it: without NUL."""
    for name, value in row.items():
        yield name, valid(value) if isinstance(value, str) else value
