"""A database behind SQLAlchemy: how it is opened, its transactions, and its errors as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, Table, delete, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from orchestrator.adapters.database import addresses, connections
from orchestrator.adapters.database.dialects import asking, insert_for, seconds_now
from orchestrator.core.errors import StoreError, UnstorableError

# What a driver or the way to it raises besides SQLAlchemy's own errors: values that the driver
# can't bind (UnicodeError is a ValueError), files and sockets, a driver that isn't installed.
_FOREIGN = (SQLAlchemyError, OSError, ValueError, TypeError, OverflowError, ImportError)
# So many waits for another writer fit into the patience of a caller.
TRIES_WITHIN = 4


class Transactions:
    """An open database; whatever it or its driver raises leaves as `StoreError`."""

    def __init__(self, place: str | Path, patience: float | None = None) -> None:
        """Open the database at a URL or in a file of SQLite, making tables that it lacks.

        Of those who have `patience` for so many seconds, one try waits for a small part of that.

        Raises:
            StoreError: It can't be opened, or is no database.
        """
        url = URL.create("sqlite", database=str(place)) if isinstance(place, Path) else place
        self._place = addresses.shown(url)
        with self._translated(opening=True):
            self._reader, self._writer = connections.open_database(url, _busy(patience))
            self._asking = asking(self._reader)
        self._insert = insert_for(self._reader)

    def close(self) -> None:
        """Close all connections. Safe to call twice."""
        self._reader.dispose()

    @property
    def engine(self) -> Engine:
        """What reads it."""
        return self._reader

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Yield a connection for one transaction, in which nobody else writes to SQLite."""
        with self._writing() as connection:
            yield connection

    def now(self) -> float:
        """Return the time by the clock of the database, in seconds since the epoch."""
        with self._reading() as connection:
            return float(connection.execute(select(seconds_now(self._reader))).scalar_one())

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        """Yield a connection to ask with; on PostgreSQL each question stands for itself."""
        with self._translated(), self._asking.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._translated(), self._writer.begin() as connection:
            yield connection

    def _note(self, table: Table, **row: object) -> None:
        """Write `row`, over what stood there under its key."""
        keys = [column.name for column in table.primary_key]
        rest = {name: value for name, value in row.items() if name not in keys}
        added = self._insert(table).values(**row)
        with self._writing() as connection:
            connection.execute(added.on_conflict_do_update(index_elements=keys, set_=rest))

    def _renew(self, table: Table, run: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Make `rows` what `table` has of `run`; of two who do that at once none fails."""
        keys = [column.name for column in table.primary_key]
        rest = [column.name for column in table.columns if not column.primary_key]
        added = self._insert(table)
        set_ = {name: added.excluded[name] for name in rest}
        with self._writing() as connection:
            connection.execute(delete(table).where(table.c.run == run))
            if rows:
                connection.execute(
                    added.on_conflict_do_update(index_elements=keys, set_=set_), rows
                )

    @contextmanager
    def _translated(self, *, opening: bool = False) -> Iterator[None]:
        try:
            yield
        except _FOREIGN as error:
            kind = UnstorableError if _is_of_a_value(error) and not opening else StoreError
            raise kind(f"database {self._place!r}: {_reason(error)}") from error


def checked(address: str) -> str:
    """Return the address of a database as it may be shown.

    Raises:
        StoreError: It can't be read.
    """
    try:
        addresses.parsed(address)
    except (SQLAlchemyError, ValueError) as error:
        message = f"database {addresses.shown(address)!r}: {_reason(error)}"
        raise StoreError(message) from error
    return addresses.shown(address)


def refusal(address: str) -> str:
    """Return why the server of the database at `address` can't be used; empty where it answers.

    Tables are neither looked at nor made.
    """
    try:
        connections.ask(addresses.parsed(address))
    except _FOREIGN as error:
        return f"database {addresses.shown(address)!r}: {_reason(error)}"
    return ""


def _busy(patience: float | None) -> float | None:
    """Return how long one try waits for another writer: so that several fit into the patience."""
    return None if patience is None else min(connections.BUSY_SECONDS, patience / TRIES_WITHIN)


def _is_of_a_value(error: BaseException) -> bool:
    """Whether a value is what the driver refuses: it would be refused the next time too."""
    driver_error = error.orig if isinstance(error, DBAPIError) and error.orig else error
    return (
        isinstance(error, DataError | IntegrityError)
        or isinstance(driver_error, ValueError | OverflowError | TypeError)
        or any(sign in str(driver_error) for sign in _UNBOUND)
    )


_UNBOUND = ("Error binding parameter", "can't adapt type", "cannot adapt type")


def _reason(error: BaseException) -> str:
    """Return what the driver said, on one line, and the way out where we know one."""
    driver_error = error.orig if isinstance(error, DBAPIError) and error.orig else error
    shortest = getattr(getattr(driver_error, "diag", None), "message_primary", None)  # of psycopg
    line = " ".join((shortest or str(driver_error)).split()) or type(driver_error).__name__
    for sign, hint in _HINTS.items():
        if sign in line:
            return f"{line}; {hint}"
    return line


_HINTS = {
    "disk is full": "free some space and resume the run",
    "locked": "another process holds it; end that or wait",
    "not a database": "move the file away to begin a new one",
    "malformed": "move the file away to begin a new one",
    "unable to open": "check that the folder exists and can be written",
    "readonly": "check the permissions of the file and its folder",
    "psycopg": "pip install 'orchestrator[postgres]'",
    "no pq wrapper": "pip install 'orchestrator[postgres]'",
    "Connection refused": "start the server, or check the address",
    "resolve host": "check the host of its address",
    "password authentication failed": "check the user and the password of its address",
    "certificate verify failed": "name who signs for the server by ?sslrootcert=FILE",
    "root certificate file": "name who signs for the server by ?sslrootcert=FILE",
    "does not match host name": "write the host as the server's certificate names it",
    "no encryption": "add ?sslmode=verify-full&sslrootcert=FILE to the address",
    "FATAL: database": "make it by `createdb -E UTF8 -T template0 NAME`, or check the address",
    "too many clients": "raise its max_connections, or put PgBouncer before it",
    "due to lock timeout": "another process holds it; end that or wait",
    "port is no number": "check the host and the port of its address",
    "where its password ends": "write @ / ? and % in it as %40 %2F %3F and %25",
    "Could not parse": "write it as sqlite:////path/to.db or postgresql://user@host/name",
}
