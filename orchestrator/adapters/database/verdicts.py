"""Verdicts on pools, the last of each."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select

from orchestrator.adapters.database import codec
from orchestrator.adapters.database.schema import verdicts
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.trust.qualification import Verdict


class SqlVerdicts(Transactions):
    """The port `Verdicts`."""

    def note_verdict(self, verdict: Verdict) -> None:
        """Keep a verdict on a pool as it is configured, in place of an earlier one."""
        body, role = codec.dump(verdict), str(verdict.role)
        self._note(verdicts, pool=verdict.pool, role=role, identity=verdict.identity, body=body)

    def verdicts(self) -> Sequence[Verdict]:
        """Return the last verdict on each pool, by role and by how it is configured."""
        with self._reading() as connection:
            rows = connection.execute(select(verdicts).order_by(verdicts.c.pool)).all()
        return [codec.load(Verdict, r.body, f"verdict on pool {r.pool!r}") for r in rows]
