"""The events of runs: an append-only table keyed by (run, sequence).

Two controllers can't both append the same number: the primary key refuses the second.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.database import codec, schema
from orchestrator.adapters.database.leases import renewal
from orchestrator.adapters.database.run_headers import NEWEST_NAMED, Headers, text_of, unknown
from orchestrator.adapters.database.schema import leases, runs
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.errors import NotFoundError, StaleControllerError, StoreError
from orchestrator.core.runs.run import RunHeader
from orchestrator.core.runs.states import EVENTS, Event
from orchestrator.messages import Lease
from orchestrator.ports import Stored

RUNS_AT_ONCE = 500  # a statement of SQLite takes some thousand values


class SqlEventLog(Transactions):
    """The port `EventLog`."""

    def create(self, header: RunHeader, at: float) -> None:
        """Add a run. Raises `StoreError` when its id exists."""
        text, parts = text_of(header)
        row = {"run": header.run, "at": at, "header": text, "cancel": False}
        added = self._insert(schema.shared_parts).on_conflict_do_nothing()
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
            matches = connection.execute(query.limit(NEWEST_NAMED + 1)).all() if run else []
            if not matches:
                raise NotFoundError(unknown(connection, run))
            if len(matches) > 1 and matches[0].run != run:
                names = ", ".join(row.run for row in matches[:NEWEST_NAMED])
                message = f"run {run!r} could be any of {names}; type more of its id"
                raise NotFoundError(message)
            return Headers(connection).of(matches[0])

    def runs(self, limit: int = 50) -> Sequence[RunHeader]:
        """Return the newest runs first."""
        query = select(runs.c.run, runs.c.header).order_by(runs.c.at.desc(), runs.c.run.desc())
        with self._reading() as connection:
            headers = Headers(connection)
            return [headers.of(row) for row in connection.execute(query.limit(limit)).all()]

    def append(
        self, run: str, seq: int, events: Sequence[Event], at: float, lease: Lease | None = None
    ) -> None:
        """Commit `events` as numbers `seq`, `seq + 1`, ... of `run`, all or none.

        A `lease` on the run is noted with them, or not at all.

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
                if lease is not None:
                    connection.execute(renewal(self._insert(leases), lease))

    def _append(
        self, connection: Connection, run: str, seq: int, rows: Sequence[Mapping[str, object]]
    ) -> None:
        last = (
            connection.scalar(
                select(func.max(schema.events.c.seq)).where(schema.events.c.run == run)
            )
            or 0
        )
        if seq > last + 1:
            message = f"event {seq!r} of run {run!r} would leave a gap: the last is {last!r}"
            raise StoreError(message)
        try:
            connection.execute(schema.events.insert(), rows)
        except IntegrityError as error:
            if last == 0 and not self._exists(run):
                message = f"run {run!r} does not exist; create it before its events"
                raise StoreError(message) from error
            message = f"event {seq!r} of run {run!r} exists: another controller has this run"
            raise StaleControllerError(message) from error

    def events(self, run: str, after: int = 0) -> Sequence[Stored]:
        """Return the events of `run` numbered above `after`, in order."""
        wanted = (schema.events.c.run == run) & (schema.events.c.seq > after)
        with self._reading() as connection:
            rows = connection.execute(
                select(schema.events).where(wanted).order_by(schema.events.c.seq)
            ).all()
        return [Stored(row.run, row.seq, row.at, _event(row)) for row in rows]

    def events_of(self, runs: Collection[str]) -> Mapping[str, Sequence[Stored]]:
        """Return all events of each of `runs`, in order; by one question for many runs."""
        events: dict[str, list[Stored]] = {run: [] for run in runs}
        table, names = schema.events, iter(list(events))
        with self._reading() as connection:
            while some := list(islice(names, RUNS_AT_ONCE)):
                query = (
                    select(table).where(table.c.run.in_(some)).order_by(table.c.run, table.c.seq)
                )
                for row in connection.execute(query):
                    events[row.run].append(Stored(row.run, row.seq, row.at, _event(row)))
        return events

    def _exists(self, run: str) -> bool:
        with self._reading() as connection:
            return bool(connection.scalar(select(func.count()).where(runs.c.run == run)))


def _event(row: Any) -> Event:  # noqa: ANN401 - a row of SQLAlchemy
    where = f"event {row.seq!r} of run {row.run!r}"
    return codec.load_kind(EVENTS, row.kind, row.body, where)
