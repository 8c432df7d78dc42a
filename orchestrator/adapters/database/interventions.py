"""What people ask of runs: approvals of stages, and to end."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, update

from orchestrator.adapters.database.run_headers import unknown
from orchestrator.adapters.database.schema import approvals, runs
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.errors import NotFoundError


class SqlInterventions(Transactions):
    """The port `Interventions`."""

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

    def request_cancel(self, run: str) -> None:
        """Ask whoever controls `run` to cancel it. Safe to call twice."""
        with self._writing() as connection:
            asked = update(runs).where(runs.c.run == run).values(cancel=True)
            if connection.execute(asked).rowcount != 1:
                raise NotFoundError(unknown(connection, run))

    def withdraw_cancel(self, run: str) -> None:
        """Take back that `run` shall be cancelled: it is to go on after all."""
        with self._writing() as connection:
            connection.execute(update(runs).where(runs.c.run == run).values(cancel=False))

    def cancel_requested(self, run: str) -> bool:
        """Whether somebody asked for `run` to be cancelled."""
        with self._reading() as connection:
            return bool(connection.scalar(select(runs.c.cancel).where(runs.c.run == run)))
