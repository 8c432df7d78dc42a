"""Databases of earlier, later and other programs' making."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import select, text

from orchestrator.adapters.database import SqlDatabase
from orchestrator.adapters.database.schema import metadata
from orchestrator.adapters.database.schema_version import (
    HEAD,
    MIGRATIONS,
    VERSION_TABLE,
    version_table,
)
from orchestrator.core.endpoints.api_keys import Requirement
from orchestrator.core.errors import StoreError
from orchestrator.core.runs.states import RunStarted
from orchestrator.messages import Queued
from tests.postgres import PostgresServer

OLD = (Path(__file__).with_name("database_of_0_1.sql")).read_text(encoding="utf-8")
FIRST = MIGRATIONS / "versions" / "first.py"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    path = tmp_path / "events.db"
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD)
    connection.close()
    return path


@pytest.fixture(params=["old", "new", "postgresql"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlDatabase]:
    place: Path | str = tmp_path / "events.db"
    if request.param == "old":
        place = request.getfixturevalue("old")
    elif request.param == "postgresql":
        place = _of_0_1(request.getfixturevalue("postgres"))
    store = SqlDatabase(place)
    yield store
    store.close()


def _of_0_1(server: PostgresServer) -> str:
    """Return the URL of a database whose tables are those of the first version."""
    url = server.schema()
    store = SqlDatabase(url)
    with store._writing() as connection:
        for table in (*metadata.tables, VERSION_TABLE):
            connection.execute(text(f"DROP TABLE {table} CASCADE"))
        connection.execute(text(_tables()))
    store.close()
    return url


def _tables() -> str:
    text = FIRST.read_text(encoding="utf-8").split('"""')[3]
    return text.replace("{identity}", "BIGSERIAL")


def test_whatever_it_was_it_has_the_tables_of_today(opened: SqlDatabase) -> None:
    with opened._reading() as connection:
        typed = connection.dialect.name != "sqlite"  # which has a name for a type more than types
        options = {"compare_type": typed, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, metadata) == []
        version = connection.scalar(select(version_table.c.version_num))
    assert version == HEAD


def test_the_last_step_is_the_one_that_databases_are_brought_to() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]


def test_an_old_file_keeps_what_it_had(old: Path) -> None:
    store = SqlDatabase(old)
    assert [stored.event for stored in store.events("run")] == [RunStarted(1)]
    assert [point.value for point in store.points("run")] == [2.5]
    waits = Queued(pool="test/a", run="run", stage="s", priority=0, since=4.0, devices=2)
    assert store.queue(1e12) == [waits]
    assert store.drained() == {"test/a": "repair"}
    assert store.key_rules().required is Requirement.ON, "its keys were asked for by being there"
    store.close()


OPEN = """
import sys
from orchestrator.adapters.database import SqlDatabase
store = SqlDatabase(sys.argv[1])
assert len(store.events("run")) == 1
print("alembic" in sys.modules)
"""


def test_processes_that_open_an_old_file_together_take_turns(old: Path) -> None:
    words = [sys.executable, "-c", OPEN, f"sqlite:///{old}"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(words, **pipes) for _ in range(2)]  # type: ignore[call-overload]
    said = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    again = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert again.stdout == "False\n", "nothing is to be migrated, so nothing is imported for it"


def test_a_database_of_a_newer_version_is_refused_in_a_line(old: Path) -> None:
    SqlDatabase(old).close()
    with sqlite3.connect(old) as connection:
        connection.execute("UPDATE orchestrator_schema SET version_num = '9999'")
    connection.close()
    with pytest.raises(StoreError, match=r"its schema is '9999', of a version after .*; bring"):
        SqlDatabase(old)


def test_a_database_of_another_program_is_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE runs (run_uuid TEXT PRIMARY KEY, name TEXT)")
    connection.close()
    with pytest.raises(StoreError, match=r"another program has its table 'runs'.*; make a data"):
        SqlDatabase(path)
