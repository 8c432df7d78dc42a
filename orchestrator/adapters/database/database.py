"""All that is kept, in one database. Safe to use from several threads and processes at once."""

from __future__ import annotations

from orchestrator.adapters.database.disposal import SqlDisposal
from orchestrator.adapters.database.endpoints import SqlEndpoints
from orchestrator.adapters.database.events import SqlEventLog
from orchestrator.adapters.database.gateways import SqlGateways
from orchestrator.adapters.database.interventions import SqlInterventions
from orchestrator.adapters.database.keys import SqlKeys
from orchestrator.adapters.database.leases import SqlLeases
from orchestrator.adapters.database.metric_points import SqlMetricPoints
from orchestrator.adapters.database.output import SqlOutput
from orchestrator.adapters.database.queues import SqlQueues
from orchestrator.adapters.database.results import SqlResultCache
from orchestrator.adapters.database.run_notes import SqlRunNotes
from orchestrator.adapters.database.usage import SqlUsage
from orchestrator.adapters.database.verdicts import SqlVerdicts


class SqlDatabase(
    SqlEventLog,
    SqlMetricPoints,
    SqlLeases,
    SqlQueues,
    SqlInterventions,
    SqlRunNotes,
    SqlOutput,
    SqlVerdicts,
    SqlResultCache,
    SqlEndpoints,
    SqlGateways,
    SqlKeys,
    SqlUsage,
    SqlDisposal,
):
    """The ports of all that is kept, on a database that SQLAlchemy knows."""
