"""The event store on SQLAlchemy Core: tables, the text that rows hold, and the store itself."""

from orchestrator.adapters.event_store.store import SqlEventStore

__all__ = ["SqlEventStore"]
