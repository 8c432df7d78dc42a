"""A database moves from SQLite to PostgreSQL: whole, or not at all; judged by plain SQL."""

from __future__ import annotations

import math
import sqlite3
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from orchestrator.adapters.database import SqlDatabase, whole_copy
from orchestrator.adapters.database.schema import metadata
from orchestrator.adapters.database.schema_version import VERSION_TABLE
from orchestrator.core.errors import HeldError, NotFoundError, StoreError
from orchestrator.messages import Lease, Points
from tests.build import header, plan, stage
from tests.contracts.test_disposal import fill
from tests.postgres import PostgresServer

MANY = 2500  # more than is copied at once


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A home's database, with something of each kind, in part odd."""
    path = tmp_path / "events.db"
    store = SqlDatabase(path)
    for run in ("first", "second"):
        store.create(header(plan(stage("s")), run), 1.0)
        fill(store, run)
    odd = {"inf": math.inf, "nan": math.nan, "small": 5e-324, "exact": 0.1 + 0.2}
    store.add_points("first", "s", 2, [Points(2**62, odd, 1e-300)])
    store.add_points("first", "s", 3, [Points(n, {"loss": n / 7}, float(n)) for n in range(MANY)])
    store.drain("a", "é \u2028 \U0001f600 'quoted' \\ %s :x")
    store.request_cancel("second")
    store.hold("cluster", "me", 60.0)
    store.note_asked("chat")
    store.close()
    return path


def of_sqlite(path: Path, table: str) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as connection:
        rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()  # noqa: S608 - our names
        names = [row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')]
    connection.close()
    return sorted((_by_name(names, row) for row in rows), key=repr)


def of_postgresql(url: str, table: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        cursor = connection.execute(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)))
        names = [column.name for column in cursor.description]
        return sorted((_by_name(names, row) for row in cursor), key=repr)


def _by_name(names: list[str], row: tuple[object, ...]) -> tuple[object, ...]:
    """Return a row in the order of its names, with 0 and 1 for false and true."""
    ordered = sorted(zip(names, row, strict=True))
    return tuple((name, int(v) if isinstance(v, bool) else v) for name, v in ordered)


def test_every_row_of_every_table_is_there_as_it_was(
    source: Path, postgres: PostgresServer
) -> None:
    url = postgres.schema()
    counts = whole_copy.copy(source, url)
    for table in (*metadata.tables, VERSION_TABLE):
        assert of_postgresql(url, table) == of_sqlite(source, table), table
    assert counts["points"] == len(of_sqlite(source, "points")) > MANY
    assert {"runs", "events", "log_chunks", "approvals", "results", "queues", "drains"} <= {
        name for name, count in counts.items() if count
    }
    store = SqlDatabase(url)
    last = store.points("first", limit=10**6)[-1].id
    store.add_points("first", "s", 4, [Points(1, {"loss": 1.0}, 1.0)])
    assert store.points("first", after=last)[0].id == len(of_sqlite(source, "points")) + 1
    store.close()


def test_a_target_that_is_not_empty_is_refused_and_stays_as_it_is(
    source: Path, postgres: PostgresServer
) -> None:
    url = postgres.schema()
    store = SqlDatabase(url)
    store.drain("mine", "why")
    with pytest.raises(StoreError, match="not empty: its table 'drains' has 1 rows; name an emp"):
        whole_copy.copy(source, url)
    assert (store.runs(), store.drained()) == ([], {"mine": "why"})
    store.close()


def test_a_run_that_is_driven_keeps_its_database(source: Path, postgres: PostgresServer) -> None:
    store, url = SqlDatabase(source), postgres.schema()
    store.renew_lease(Lease(run="second", epoch=2, at=store.now() - 5.0))
    with pytest.raises(HeldError, match="run 'second' has a controller that lives; `orchestr"):
        whole_copy.copy(source, url)
    store.renew_lease(Lease(run="second", epoch=2, at=store.now() - 60.0))
    store.close()
    assert whole_copy.copy(source, url)["runs"] == 2


def test_what_breaks_off_has_copied_nothing(
    source: Path, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite3.connect(source) as connection:  # SQLite keeps any type in any column
        connection.execute("UPDATE queues SET devices = 'many' WHERE run = 'second'")
    connection.close()
    url = postgres.schema()
    with pytest.raises(StoreError):
        whole_copy.copy(source, url)
    store = SqlDatabase(url)
    assert store.runs() == []
    store.close()


def test_a_file_that_is_not_there_is_not_made(tmp_path: Path, postgres: PostgresServer) -> None:
    with pytest.raises(NotFoundError, match=r"there is no database '.*nowhere.db'"):
        whole_copy.copy(tmp_path / "nowhere.db", postgres.schema())
    assert not (tmp_path / "nowhere.db").exists()
