"""What was changed of the schema, step by step, as Alembic wants it laid out."""
