"""How Alembic migrates a database: over the connection of who opens it, in its transaction."""

from alembic import context

from orchestrator.adapters.database.schema import metadata
from orchestrator.adapters.database.schema_version import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a table by making it anew
)
with context.begin_transaction():
    context.run_migrations()
