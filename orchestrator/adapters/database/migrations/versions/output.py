"""What attempts print, report and have done so far: tables that the version of step 2 lacked."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _place() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("run", sa.Text, sa.ForeignKey("runs.run"), nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
    )


def upgrade() -> None:
    """Make what is missing."""
    op.create_table(
        "log_chunks",
        sa.Column("id", ID, primary_key=True),
        *_place(),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("page", sa.Text, nullable=False),
        sa.UniqueConstraint("run", "stage", "attempt", "at"),
        if_not_exists=True,
    )
    op.create_table(
        "reports",
        *_place(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("run", "stage", "attempt", "name"),
        if_not_exists=True,
    )
    op.create_table(
        "progress",
        *_place(),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("run", "stage", "attempt"),
        if_not_exists=True,
    )
