"""Leases of runs; a later epoch has precedence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select

from orchestrator.adapters.database.schema import leases
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.errors import StaleControllerError
from orchestrator.messages import Lease


class SqlLeases(Transactions):
    """The port `Leases`."""

    def renew_lease(self, lease: Lease) -> None:
        """Note that a controller has its run.

        Raises:
            StaleControllerError: One of a later epoch has it.
        """
        kept = renewal(self._insert(leases), lease)
        with self._writing() as connection:
            if not connection.scalars(kept.returning(leases.c.run)).all():
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


def renewal(insert: Any, lease: Lease) -> Any:  # noqa: ANN401 - statements of two dialects
    """Return the statement that notes `lease`, unless one of a later epoch is there."""
    row = {"epoch": lease.epoch, "at": lease.at, "holder": lease.holder}
    ours = leases.c.epoch <= lease.epoch
    added = insert.values(run=lease.run, **row)
    return added.on_conflict_do_update(index_elements=["run"], set_=row, where=ours)


def _lease(row: Any) -> Lease:  # noqa: ANN401 - a row of SQLAlchemy
    return Lease(run=row.run, epoch=row.epoch, at=row.at, holder=row.holder)
