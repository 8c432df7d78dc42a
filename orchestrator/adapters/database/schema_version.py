"""Brings a database to the schema of this version.

A database says which schema it has. A new one is made whole, an older one is migrated by Alembic,
a newer one is refused. Processes that open one together take turns. Where nothing is to be done,
which is nearly always, one row is read and Alembic is not imported.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    inspect,
    select,
    text,
)

from orchestrator import __version__
from orchestrator.adapters.database.dialects import POSTGRESQL
from orchestrator.adapters.database.schema import metadata, runs

HEAD = "0004"  # the last of `migrations/versions`
VERSION_TABLE = "orchestrator_schema"  # MLflow, which uses Alembic too, may share the database
MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK = 0x6F726368  # any number, the same in all our processes

version_table = Table(
    VERSION_TABLE, MetaData(), Column("version_num", String(32), primary_key=True)
)


def bring_up(reader: Engine, writer: Engine) -> None:
    """Have the database as this version needs it.

    Raises:
        ValueError: A newer version has migrated it, or it is another program's.
    """
    with reader.begin() as connection:
        if _version(connection) == HEAD:
            return
    with writer.begin() as connection:
        if connection.dialect.name == POSTGRESQL:
            connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK})"))
        if _is_new(connection):
            metadata.create_all(connection)
            version_table.create(connection)
            connection.execute(version_table.insert(), {"version_num": HEAD})
        elif _version(connection) != HEAD:  # nobody was quicker
            _migrate(connection)


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(select(version_table.c.version_num))


def _is_new(connection: Connection) -> bool:
    """Whether there is nothing of ours yet; another program's tables may not have our names."""
    inspector = inspect(connection)
    if inspector.has_table(VERSION_TABLE):
        return False
    if not inspector.has_table(runs.name):
        return True
    if {column["name"] for column in inspector.get_columns(runs.name)} >= set(runs.c.keys()):
        return False
    own = "make a database for the orchestrator alone"
    message = f"another program has its table {runs.name!r} there, as MLflow does; {own}"
    raise ValueError(message)


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    version = _version(connection)
    known = {script.revision for script in ScriptDirectory(str(MIGRATIONS)).walk_revisions()}
    if version is not None and version not in known:
        what = f"its schema is {version!r}, of a version after {__version__}"
        message = f"{what}; bring this installation up to the one that last opened it"
        raise ValueError(message)
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
