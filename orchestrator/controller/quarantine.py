"""Which nodes no run shall use for a time, because a chip of theirs broke."""

from __future__ import annotations

from orchestrator.controller.attempt_requests import AttemptDefaults
from orchestrator.core.failures.kinds import OF_A_BROKEN_CHIP
from orchestrator.core.runs.fleet_on_cluster import fleet_on_cluster
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import AttemptFailed
from orchestrator.ports import Queues


def quarantine_node(
    queues: Queues, run: Run, failed: AttemptFailed, defaults: AttemptDefaults
) -> None:
    """Put the node in quarantine on which an attempt failed, if a chip of it surely broke."""
    failure = failed.failure
    broken = failure.kind in OF_A_BROKEN_CHIP and failure.certain
    seconds = defaults.waits.quarantine
    if broken and failure.node and failure.pool and seconds:
        pool = fleet_on_cluster(run.header).name_of(failure.pool)
        evidence = " ".join(failure.evidence.split())[:_LONGEST]
        where = f"{run.header.run}/{failed.stage}/{failed.number}"
        queues.quarantine(pool, failure.node, f"{failure.kind} in {where}: {evidence}", seconds)


_LONGEST = 200
