"""How a database is opened: SQLite for one host, PostgreSQL for several.

SQLite runs in WAL mode: readers never wait for the writer. `synchronous=FULL` makes a commit
survive a power cut: an event is acted on once it is committed, and an epoch that was forgotten
would let two controllers share it. Commits are few (events) or large (points), so that one
flush each is cheap. A writer begins `IMMEDIATE`: it waits for its turn at once, instead of
failing half-way when it turns from reader to writer.

PostgreSQL is a server that may restart or be cut off: connections that are broken are made
anew, one that is silent is given up within half a minute, and what a frozen client holds locked
is given back by the server.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

from orchestrator.adapters.database import addresses
from orchestrator.adapters.database.dialects import POSTGRESQL
from orchestrator.adapters.database.file_systems import network_file_system
from orchestrator.adapters.database.schema_version import bring_up
from orchestrator.supervisor import file_modes

BUSY_SECONDS = 30
UTF8 = "UTF8"
_WRITES = "writes"
_SQLITE = "sqlite"
# By libpq's names; a URL may say otherwise in its query.
_PATIENCE = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "orchestrator",
    "client_encoding": "utf8",
}
_SECONDS_FROZEN = 60  # of a client that stopped in the middle of a transaction
_ELSEWHERE = "set ORCHESTRATOR_DATABASE to postgresql://USER@HOST/NAME, or use a local disk"
KEPT_OPEN = 2  # connections of each process: a server has a hundred, unless it is told otherwise


def open_database(url: str | URL, busy: float | None = None) -> tuple[Engine, Engine]:
    """Open the database at `url`, with the tables of this version.

    It waits `busy` seconds for another writer; `BUSY_SECONDS` where they are `None`.

    Returns:
        An engine to read with and one to write with, over one pool of connections.
    """
    parsed = addresses.parsed(url)
    seconds = BUSY_SECONDS if busy is None else busy
    backend = parsed.get_backend_name()
    if backend == _SQLITE:
        engine = _sqlite(parsed, seconds)
    elif backend in {POSTGRESQL, "postgres"}:  # libpq takes both
        engine = _postgresql(parsed.set(drivername=f"{POSTGRESQL}+psycopg"), seconds)
    else:
        message = f"{backend!r} is neither SQLite nor PostgreSQL"
        raise ValueError(message)
    writer = engine.execution_options(**{_WRITES: True})
    bring_up(engine, writer)
    return engine, writer


def ask(url: URL) -> None:
    """Connect to the server of PostgreSQL at `url`, as runs do, and ask it something."""
    engine = _postgresql(url.set(drivername=f"{POSTGRESQL}+psycopg"), BUSY_SECONDS)
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT 1")
    finally:
        engine.dispose()


# --- SQLite ------------------------------------------------------------------------------------


def _sqlite(url: URL, busy: float) -> Engine:
    if url.database in {None, "", ":memory:"}:
        message = "it has no file, and each thread would see its own"
        raise ValueError(message)
    path = Path(str(url.database))
    kind = network_file_system(path.parent)
    if kind:
        ways = (
            "set ORCHESTRATOR_DATABASE to postgresql://USER@HOST/NAME, or keep it on a local disk"
        )
        message = f"it is on a network file system ({kind}), where SQLite loses data; {ways}"
        raise ValueError(message)
    _keep_private(path)
    engine = create_engine(url)
    event.listen(engine, "connect", partial(_prepare, busy))
    event.listen(engine, "begin", _begin)
    return engine


def _keep_private(path: Path) -> None:
    """Have the file be its owner's alone: it holds what opens replicas. Its journals follow it."""
    path.parent.mkdir(mode=file_modes.FOLDER, parents=True, exist_ok=True)
    if not path.exists():
        path.touch(mode=file_modes.FILE)
    for end in ("", "-wal", "-shm", "-journal"):
        with suppress(FileNotFoundError):  # the last one to leave removes them
            file_modes.narrow(path.with_name(f"{path.name}{end}"), file_modes.FILE)


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


# --- PostgreSQL --------------------------------------------------------------------------------


def _postgresql(url: URL, busy: float) -> Engine:
    """Return an engine whose waits have ends: for the server, for locks, for frozen clients."""
    waits = {"lock_timeout": busy, "idle_in_transaction_session_timeout": _SECONDS_FROZEN}
    options = [f"-c {name}={int(seconds * 1000)}" for name, seconds in waits.items()]
    unsaid = {name: value for name, value in _PATIENCE.items() if name not in url.query}
    unsaid["options"] = " ".join([*options, str(url.query.get("options", ""))])  # the last counts
    engine = create_engine(url, pool_pre_ping=True, pool_size=KEPT_OPEN, connect_args=unsaid)
    # Before SQLAlchemy itself asks: in another encoding it gets bytes where it wants text.
    event.listen(engine, "connect", _check_encoding, insert=True)
    return engine


def _check_encoding(connection: Any, _record: object) -> None:  # noqa: ANN401 - psycopg's, as it comes
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != UTF8:
        ways = f"make one by `createdb -E {UTF8} -T template0 NAME`"
        message = f"its encoding is {encoding!r}, which does not hold every text; {ways}"
        raise ValueError(message)
