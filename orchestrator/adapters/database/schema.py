"""The tables, and how a database is opened.

SQLite runs in WAL mode: readers never wait for the writer. `synchronous=FULL` makes a commit
survive a power cut: an event is acted on once it is committed, and an epoch that was forgotten
would let two controllers share it. Commits are few (events) or large (points), so that one
flush each is cheap. A writer begins `IMMEDIATE`: it waits for its turn at once, instead of
failing half-way when it turns from reader to writer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
    func,
    literal_column,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.schema import CreateTable

BUSY_SECONDS = 30
_WRITES = "writes"
_SCHEMA_LOCK = 0x6F726368  # any number, the same in all our processes

metadata = MetaData()
_Id = BigInteger().with_variant(Integer(), "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("header", Text, nullable=False),
    Column("cancel", Boolean, nullable=False),
)

shared_parts = Table(  # of headers, by the digest of their text
    "shared_parts",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
)

# SQLite keeps NaN as NULL; so do we, everywhere.
points = Table(
    "points",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("run", Text, ForeignKey("runs.run"), nullable=False),
    Column("stage", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Double),
    Column("step", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    UniqueConstraint("run", "stage", "attempt", "step", "at", "key"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("holder", Text, nullable=False),
)

drains = Table(
    "drains",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("reason", Text, nullable=False),
)

approvals = Table(
    "approvals",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("who", Text, nullable=False),
)

queues = Table(
    "lines",  # `queues`, of databases of the first version, did not say how many chips
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("since", Double, nullable=False),
    Column("devices", Integer, nullable=False),
    Column("at", Double, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("identity", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

endpoint_events = Table(
    "endpoint_events",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("urls", Text, nullable=False),
)

troubles = Table(
    "troubles",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
)

reconcilers = Table(
    "reconcilers",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("at", Double, nullable=False),
)

asked = Table(
    "asked",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("at", Double, nullable=False),
)

gateways = Table(
    "gateways",
    metadata,
    Column("name", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("seen", Double, nullable=False),
)

gateway_counts = Table(
    "gateway_counts",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("at", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

# One row, once anything was said or changed: whether keys are asked for, and the newest stamp.
key_rules = Table(
    "key_rules",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("required", Text, nullable=False),
    Column("stamp", Text, nullable=False),
)

# What each gateway has noted; together it is their sum.
usage = Table(
    "usage",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("day", Text, primary_key=True, index=True),
    Column("key", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("revision", Text, primary_key=True),
    Column("pool", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("cost", Double, nullable=False),
)

# What each gateway has seen held: all see the same replicas.
held = Table(
    "held",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("day", Text, primary_key=True, index=True),
    Column("endpoint", Text, primary_key=True),
    Column("pool", Text, primary_key=True),
    Column("device_seconds", Double, nullable=False),
    Column("cost", Double, nullable=False),
)

untold = Table(
    "untold",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("what", Text, primary_key=True),
    Column("times", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

busy = Table(
    "busy",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("what", Text, nullable=False),
    Column("since", Double, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("key", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("body", Text, nullable=False),
)


def open_database(url: str | URL, busy: float | None = None) -> tuple[Engine, Engine]:
    """Open the database at `url` and make the tables that it lacks.

    SQLite waits `busy` seconds for another writer; `BUSY_SECONDS` where they are `None`.

    Returns:
        An engine to read with and one to write with, over one pool of connections.
    """
    parsed = make_url(url)
    sqlite = parsed.get_backend_name() == "sqlite"
    if sqlite and parsed.database in (None, "", ":memory:"):
        message = "it has no file, and each thread would see its own"
        raise ValueError(message)
    if sqlite and parsed.database:
        _keep_private(Path(parsed.database))
    engine = create_engine(parsed, pool_pre_ping=not sqlite)
    if sqlite:
        event.listen(engine, "connect", partial(_prepare, BUSY_SECONDS if busy is None else busy))
        event.listen(engine, "begin", _begin)
    writer = engine.execution_options(**{_WRITES: True})
    _make_tables(writer)
    return engine, writer


def _keep_private(path: Path) -> None:
    """Have the file be its owner's alone: it holds what opens replicas. Its journals follow it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=0o600)
    elif path.stat().st_uid == os.geteuid() and path.stat().st_mode & 0o077:
        for file in (path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))):
            if file.exists():
                file.chmod(0o600)


def _prepare(busy: float, connection: Any, _record: object) -> None:  # noqa: ANN401 - sqlite3's, as it comes
    connection.isolation_level = None  # transactions are ours: see _begin
    for pragma in (
        f"busy_timeout={int(busy * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _make_tables(engine: Engine) -> None:
    """Make what is missing; processes that open a new database together take turns."""
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_SCHEMA_LOCK})"))
        for table in metadata.sorted_tables:
            connection.execute(CreateTable(table, if_not_exists=True))
            for index in table.indexes:
                index.create(connection, checkfirst=True)


def insert_for(engine: Engine) -> Callable[[Table], Any]:
    """Return the `insert` of the engine's dialect, which knows `ON CONFLICT`."""
    if engine.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert
    from sqlalchemy.dialects import sqlite

    return sqlite.insert


def seconds_now(engine: Engine) -> ColumnElement[float]:
    """Return the time of the database's own clock, in seconds since the epoch."""
    if engine.dialect.name == "postgresql":
        return func.extract("epoch", func.clock_timestamp()).cast(Double)
    return literal_column("((julianday('now') - 2440587.5) * 86400.0)", Double)


class BulkInsert:
    """Adds many rows, but for those that are there; twice as fast as `execute` on a list.

    The statement is compiled once, and rows go to the driver as they are.
    """

    def __init__(self, engine: Engine, table: Table, columns: Sequence[str]) -> None:
        """Compile the statement for rows that hold `columns` in this order."""
        added = insert_for(engine)(table).on_conflict_do_nothing().inline()
        self._columns = tuple(columns)
        compiled = added.compile(engine, column_keys=self._columns)
        self._statement = str(compiled)
        self._order = compiled.positiontup

    def into(self, connection: Connection, rows: Sequence[tuple[object, ...]]) -> None:
        """Add `rows`."""
        if self._order == list(self._columns):
            connection.exec_driver_sql(self._statement, list(rows))
        else:
            named = [dict(zip(self._columns, row, strict=True)) for row in rows]
            connection.exec_driver_sql(self._statement, named)
