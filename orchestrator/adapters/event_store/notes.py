"""What is noted beside the events: leases, emptied pools, verdicts on pools, approvals, queues.

Each is what somebody last said, and may be said again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import delete, select

from orchestrator.adapters.event_store import codec
from orchestrator.adapters.event_store.database import Database
from orchestrator.adapters.event_store.tables import (
    approvals,
    drains,
    leases,
    queues,
    runs,
    verdicts,
)
from orchestrator.adapters.event_store.tables import busy as _busy
from orchestrator.adapters.event_store.tables import untold as _untold
from orchestrator.core.errors import NotFoundError, StaleControllerError
from orchestrator.core.trust.qualification import Verdict
from orchestrator.messages import Busy, Lease, Queued, Untold


class Notes(Database):
    """The part of the event store that remembers the latest word alone."""

    def renew_lease(self, lease: Lease) -> None:
        """Note that a controller has its run.

        Raises:
            StaleControllerError: One of a later epoch has it.
        """
        row = {"epoch": lease.epoch, "at": lease.at, "holder": lease.holder}
        added = self._insert(leases).values(run=lease.run, **row)
        ours = leases.c.epoch <= lease.epoch
        kept = added.on_conflict_do_update(index_elements=["run"], set_=row, where=ours)
        with self._writing() as connection:
            if not connection.execute(kept).rowcount:
                message = f"run {lease.run!r} has a controller of an epoch after {lease.epoch!r}"
                raise StaleControllerError(message)

    def lease(self, run: str) -> Lease | None:
        """Return when a controller of `run` last showed life; `None` after it has left."""
        with self._reading() as connection:
            row = connection.execute(select(leases).where(leases.c.run == run)).one_or_none()
        return None if row is None else _lease(row)

    def leases(self) -> Sequence[Lease]:
        """Return the leases of all runs whose controller has not left, dead ones included."""
        with self._reading() as connection:
            return [_lease(row) for row in connection.execute(select(leases))]

    def drop_lease(self, run: str, epoch: int) -> None:
        """Note that the controller of `epoch` has left `run`. Safe to call twice."""
        mine = (leases.c.run == run) & (leases.c.epoch == epoch)
        with self._writing() as connection:
            connection.execute(delete(leases).where(mine))

    def note_untold(self, run: str, untold: Sequence[Untold]) -> None:
        """Keep what could not be told of `run`, over what was kept of it before."""
        rows = [
            {"run": run, "what": one.what, "times": one.count, "reason": one.reason}
            for one in untold
        ]
        with self._writing() as connection:
            connection.execute(delete(_untold).where(_untold.c.run == run))
            if rows:
                connection.execute(_untold.insert(), rows)

    def untold(self, run: str) -> Sequence[Untold]:
        """Return what could not be told of `run`."""
        query = select(_untold).where(_untold.c.run == run).order_by(_untold.c.what)
        with self._reading() as connection:
            return [Untold(r.what, r.times, r.reason) for r in connection.execute(query)]

    def note_busy(self, run: str, busy: Sequence[Busy]) -> None:
        """Keep what the attempts of `run` are busy with, over what was kept of it before."""
        rows = [
            {
                "run": run,
                "stage": one.stage,
                "attempt": one.attempt,
                "what": one.what,
                "since": one.since,
            }
            for one in busy
        ]
        with self._writing() as connection:
            connection.execute(delete(_busy).where(_busy.c.run == run))
            if rows:
                connection.execute(_busy.insert(), rows)

    def busy(self, run: str) -> Sequence[Busy]:
        """Return what the attempts of `run` are busy with, as was said last."""
        query = select(_busy).where(_busy.c.run == run).order_by(_busy.c.stage, _busy.c.attempt)
        with self._reading() as connection:
            return [Busy(r.stage, r.attempt, r.what, r.since) for r in connection.execute(query)]

    def drain(self, pool: str, reason: str) -> None:
        """Note that `pool` is to be emptied. Safe to call twice; the last reason stays."""
        self._note(drains, pool=pool, reason=reason)

    def undrain(self, pool: str) -> None:
        """Note that `pool` is to be used again. Safe to call twice."""
        with self._writing() as connection:
            connection.execute(delete(drains).where(drains.c.pool == pool))

    def drained(self) -> Mapping[str, str]:
        """Return the pools that are to be emptied, with the reasons."""
        with self._reading() as connection:
            return {row.pool: row.reason for row in connection.execute(select(drains))}

    def approve(self, run: str, stage: str, by: str) -> None:
        """Note that `by` approves `stage` of `run`."""
        with self._reading() as connection:
            if connection.scalar(select(runs.c.run).where(runs.c.run == run)) is None:
                raise NotFoundError(f"no run {run!r}; `orchestrator status` lists them")
        self._note(approvals, run=run, stage=stage, who=by)

    def approvals(self, run: str) -> Mapping[str, str]:
        """Return who approved which stages of `run`."""
        with self._reading() as connection:
            rows = connection.execute(select(approvals).where(approvals.c.run == run))
            return {row.stage: row.who for row in rows}

    def queue_up(self, run: str, entries: Sequence[Queued], at: float) -> None:
        """Make `entries` what `run` waits for as of `at` (seconds, epoch), instead of before."""
        rows = [
            {
                "run": run,
                "stage": one.stage,
                "pool": one.pool,
                "priority": one.priority,
                "since": one.since,
                "devices": one.devices,
                "at": at,
            }
            for one in entries
        ]
        with self._writing() as connection:
            connection.execute(delete(queues).where(queues.c.run == run))
            if rows:
                connection.execute(queues.insert(), rows)

    def queue(self, since: float) -> Sequence[Queued]:
        """Return what all runs wait for that said so at `since` (seconds, epoch) or later."""
        with self._reading() as connection:
            rows = connection.execute(select(queues).where(queues.c.at >= since)).all()
        return [
            Queued(
                pool=row.pool,
                run=row.run,
                stage=row.stage,
                priority=row.priority,
                since=row.since,
                devices=row.devices,
            )
            for row in rows
        ]

    def note_verdict(self, verdict: Verdict) -> None:
        """Keep a verdict on a pool as it is configured, in place of an earlier one."""
        body, role = codec.dump(verdict), str(verdict.role)
        self._note(verdicts, pool=verdict.pool, role=role, identity=verdict.identity, body=body)

    def verdicts(self) -> Sequence[Verdict]:
        """Return the last verdict on each pool, by role and by how it is configured."""
        with self._reading() as connection:
            rows = connection.execute(select(verdicts).order_by(verdicts.c.pool)).all()
        return [codec.load(Verdict, r.body, f"verdict on pool {r.pool!r}") for r in rows]


def _lease(row: Any) -> Lease:  # noqa: ANN401 - a row of SQLAlchemy
    return Lease(run=row.run, epoch=row.epoch, at=row.at, holder=row.holder)
