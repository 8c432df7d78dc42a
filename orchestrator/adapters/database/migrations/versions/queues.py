"""Queues under their name, and what was said by there being a key is said by a row.

The first version had queues that did not say how many chips, so those that did were `lines`. Its
keys were asked for once there was one.
"""

from alembic import op
from sqlalchemy import inspect

revision = "0002"
down_revision = "0001"

ASKED_FOR = """
INSERT INTO key_rules (id, required, stamp)
SELECT 1, 'on', '0002' WHERE EXISTS (SELECT 1 FROM keys) AND NOT EXISTS (SELECT 1 FROM key_rules)
"""


def upgrade() -> None:
    """Rename a table, and write a row."""
    if inspect(op.get_bind()).has_table("queues"):
        op.drop_table("queues")
    op.rename_table("lines", "queues")
    op.execute(ASKED_FOR)
