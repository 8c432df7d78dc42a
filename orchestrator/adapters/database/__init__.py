"""All that is kept, on SQLAlchemy Core: a class for each port, over one set of tables."""

from orchestrator.adapters.database.database import SqlDatabase

__all__ = ["SqlDatabase"]
