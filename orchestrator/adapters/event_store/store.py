"""The event store: an append-only table keyed by (run, sequence), and what lies beside it.

Two controllers can't both append the same number: the primary key refuses the second. Whatever
the database or its driver raises leaves as one `StoreError`. Safe to use from several threads and
processes at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.event_store import codec, tables
from orchestrator.adapters.event_store.endpoints import Endpoints
from orchestrator.adapters.event_store.gateways import Gateways
from orchestrator.adapters.event_store.headers import Headers, text_of
from orchestrator.adapters.event_store.keys import Keys
from orchestrator.adapters.event_store.metric_points import points_of, rows_of
from orchestrator.adapters.event_store.notes import Notes
from orchestrator.adapters.event_store.seal import no_secret
from orchestrator.adapters.event_store.tables import cursors, results, runs
from orchestrator.adapters.event_store.usages import Usages
from orchestrator.core.errors import (
    NotFoundError,
    StaleControllerError,
    StoreError,
    UnstorableError,
)
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import EVENTS, Event
from orchestrator.messages import Points, Succeeded
from orchestrator.ports import Point, Stored

NEWEST_NAMED = 5
POINT_COLUMNS = ("run", "stage", "attempt", "key", "value", "step", "at")


class SqlEventStore(Notes, Endpoints, Gateways, Keys, Usages):
    """The ports of all that is kept, on a database that SQLAlchemy knows."""

    def __init__(
        self,
        place: str | Path,
        patience: float | None = None,
        *,
        secret: Callable[[], bytes] = no_secret,
    ) -> None:
        """Open the database at `place`, a file of SQLite or a URL, making tables that it lacks.

        One try of a call waits for a part of the caller's `patience` (seconds) for other writers.
        `secret` is what tokens of replicas are sealed with; it is asked for when one is.

        Raises:
            StoreError: It can't be opened, or is no database.
        """
        super().__init__(place, patience, secret=secret)
        self._points = tables.BulkInsert(self._reader, tables.points, POINT_COLUMNS)

    # --- runs ----------------------------------------------------------------------------------

    def create(self, header: RunHeader, at: float) -> None:
        """Add a run. Raises `StoreError` when its id exists."""
        text, parts = text_of(header)
        row = {"run": header.run, "at": at, "header": text, "cancel": False}
        added = self._insert(tables.shared_parts).on_conflict_do_nothing()
        with self._writing() as connection:
            for digest, body in parts.items():
                connection.execute(added, {"digest": digest, "body": body})
            try:
                connection.execute(runs.insert(), row)
            except IntegrityError as error:
                message = f"run {header.run!r} exists already; take another id"
                raise StoreError(message) from error

    def header(self, run: str) -> RunHeader:
        """Return the header of `run`, by id or unique prefix. Raises `NotFoundError`."""
        begins = func.substr(runs.c.run, 1, len(run)) == run
        query = select(runs.c.run, runs.c.header).where(begins).order_by(runs.c.run)
        with self._reading() as connection:
            found = connection.execute(query.limit(NEWEST_NAMED + 1)).all() if run else []
            if not found:
                raise NotFoundError(self._unknown(connection, run))
            if len(found) > 1 and found[0].run != run:
                names = ", ".join(row.run for row in found[:NEWEST_NAMED])
                message = f"run {run!r} could be any of {names}; type more of its id"
                raise NotFoundError(message)
            return Headers(connection).of(found[0])

    def runs(self, limit: int = 50) -> Sequence[RunHeader]:
        """Return the newest runs first."""
        query = select(runs.c.run, runs.c.header).order_by(runs.c.at.desc(), runs.c.run.desc())
        with self._reading() as connection:
            headers = Headers(connection)
            return [headers.of(row) for row in connection.execute(query.limit(limit)).all()]

    def request_cancel(self, run: str) -> None:
        """Ask whoever controls `run` to cancel it. Safe to call twice."""
        with self._writing() as connection:
            asked = update(runs).where(runs.c.run == run).values(cancel=True)
            if connection.execute(asked).rowcount != 1:
                raise NotFoundError(self._unknown(connection, run))

    def withdraw_cancel(self, run: str) -> None:
        """Take back that `run` shall be cancelled: it is to go on after all."""
        with self._writing() as connection:
            connection.execute(update(runs).where(runs.c.run == run).values(cancel=False))

    def cancel_requested(self, run: str) -> bool:
        """Whether somebody asked for `run` to be cancelled."""
        with self._reading() as connection:
            return bool(connection.scalar(select(runs.c.cancel).where(runs.c.run == run)))

    # --- events --------------------------------------------------------------------------------

    def append(self, run: str, seq: int, events: Sequence[Event], at: float) -> None:
        """Commit `events` as numbers `seq`, `seq + 1`, ... of `run`, all or none.

        Raises:
            StaleControllerError: Number `seq` exists: another controller has this run.
        """
        rows = [
            {
                "run": run,
                "seq": number,
                "at": at,
                "kind": type(item).__name__,
                "body": codec.dump(item),
            }
            for number, item in enumerate(events, start=seq)
        ]
        if rows:
            with self._writing() as connection:
                self._append(connection, run, seq, rows)

    def _append(
        self, connection: Connection, run: str, seq: int, rows: Sequence[Mapping[str, object]]
    ) -> None:
        last = (
            connection.scalar(
                select(func.max(tables.events.c.seq)).where(tables.events.c.run == run)
            )
            or 0
        )
        if seq > last + 1:
            message = f"event {seq!r} of run {run!r} would leave a gap: the last is {last!r}"
            raise StoreError(message)
        try:
            connection.execute(tables.events.insert(), rows)
        except IntegrityError as error:
            if last == 0 and not self._exists(run):
                message = f"run {run!r} does not exist; create it before its events"
                raise StoreError(message) from error
            message = f"event {seq!r} of run {run!r} exists: another controller has this run"
            raise StaleControllerError(message) from error

    def events(self, run: str, after: int = 0) -> Sequence[Stored]:
        """Return the events of `run` numbered above `after`, in order."""
        wanted = (tables.events.c.run == run) & (tables.events.c.seq > after)
        with self._reading() as connection:
            rows = connection.execute(
                select(tables.events).where(wanted).order_by(tables.events.c.seq)
            ).all()
        return [Stored(row.run, row.seq, row.at, _event(row)) for row in rows]

    # --- metric points -------------------------------------------------------------------------

    def add_points(self, run: str, stage: str, attempt: int, points: Sequence[Points]) -> None:
        """Commit metric points; a point that is there already is not added again.

        Raises:
            UnstorableError: Some are no points; all others are stored.
        """
        rows, problems = rows_of((run, stage, attempt), points)
        if rows:
            with self._writing() as connection:
                self._points.into(connection, rows)
        if problems:
            message = f"{len(problems)} metric points can't be stored, the first: {problems[0]}"
            raise UnstorableError(message)

    def points(self, run: str, after: int = 0, limit: int = 10_000) -> Sequence[Point]:
        """Return metric points of `run` with an id above `after`, by id."""
        query = select(tables.points).order_by(tables.points.c.id).limit(limit)
        while True:
            wanted = (tables.points.c.run == run) & (tables.points.c.id > after)
            with self._reading() as connection:
                rows = connection.execute(query.where(wanted)).all()
            found = points_of(run, rows)
            if found or not rows:
                return found
            after = rows[-1].id

    # --- cursors and results -------------------------------------------------------------------

    def cursor(self, name: str) -> int:
        """Return the number kept under `name`; 0 when there is none."""
        with self._reading() as connection:
            return connection.scalar(select(cursors.c.value).where(cursors.c.name == name)) or 0

    def set_cursor(self, name: str, value: int) -> None:
        """Keep `value` under `name`."""
        added = self._insert(cursors).values(name=name, value=value)
        with self._writing() as connection:
            connection.execute(
                added.on_conflict_do_update(index_elements=["name"], set_={"value": value})
            )

    def remember(self, key: str, result: Succeeded, run: str) -> None:
        """Keep the result of a stage for reuse under its cache key; the latest one stays."""
        row = {"run": run, "body": codec.dump(result)}
        added = self._insert(results).values(key=key, **row)
        with self._writing() as connection:
            connection.execute(added.on_conflict_do_update(index_elements=["key"], set_=row))

    def recall(self, key: str) -> tuple[Succeeded, str] | None:
        """Return a kept result and the run that made it."""
        with self._reading() as connection:
            row = connection.execute(select(results).where(results.c.key == key)).one_or_none()
        if row is None:
            return None
        return codec.load(Succeeded, row.body, f"result {key!r} of run {row.run!r}"), row.run

    def _exists(self, run: str) -> bool:
        with self._reading() as connection:
            return bool(connection.scalar(select(func.count()).where(runs.c.run == run)))

    def _unknown(self, connection: Connection, run: str) -> str:
        query = select(runs.c.run).order_by(runs.c.at.desc(), runs.c.run.desc())
        names = connection.scalars(query.limit(NEWEST_NAMED)).all()
        newest = f"the newest are {', '.join(names)}" if names else "there are none yet"
        return f"no run {run!r}; {newest}"


def _event(row: Any) -> Event:  # noqa: ANN401 - a row of SQLAlchemy
    where = f"event {row.seq!r} of run {row.run!r}"
    return codec.load_kind(EVENTS, row.kind, row.body, where)
