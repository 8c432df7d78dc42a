"""The tables that databases had before they said which schema they have; each may have some."""

from alembic import op

revision = "0001"
down_revision = None

TABLES = """
CREATE TABLE IF NOT EXISTS runs (
    run TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, header TEXT NOT NULL, cancel BOOLEAN
    NOT NULL, PRIMARY KEY (run)
);
CREATE TABLE IF NOT EXISTS approvals (
    run TEXT NOT NULL, stage TEXT NOT NULL, who TEXT NOT NULL, PRIMARY KEY (run, stage),
    FOREIGN KEY (run) REFERENCES runs (run)
);
CREATE TABLE IF NOT EXISTS asked (
    endpoint TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, PRIMARY KEY (endpoint)
);
CREATE TABLE IF NOT EXISTS busy (
    run TEXT NOT NULL, stage TEXT NOT NULL, attempt INTEGER NOT NULL, what TEXT NOT NULL,
    since DOUBLE PRECISION NOT NULL, PRIMARY KEY (run, stage, attempt), FOREIGN KEY (run)
    REFERENCES runs (run)
);
CREATE TABLE IF NOT EXISTS cursors (
    name TEXT NOT NULL, value BIGINT NOT NULL, PRIMARY KEY (name)
);
CREATE TABLE IF NOT EXISTS drains (
    pool TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (pool)
);
CREATE TABLE IF NOT EXISTS endpoint_events (
    endpoint TEXT NOT NULL, seq INTEGER NOT NULL, at DOUBLE PRECISION NOT NULL, kind TEXT
    NOT NULL, body TEXT NOT NULL, PRIMARY KEY (endpoint, seq)
);
CREATE TABLE IF NOT EXISTS events (
    run TEXT NOT NULL, seq INTEGER NOT NULL, at DOUBLE PRECISION NOT NULL, kind TEXT NOT
    NULL, body TEXT NOT NULL, PRIMARY KEY (run, seq), FOREIGN KEY (run) REFERENCES runs
    (run)
);
CREATE TABLE IF NOT EXISTS gateway_counts (
    gateway TEXT NOT NULL, endpoint TEXT NOT NULL, body TEXT NOT NULL, at DOUBLE PRECISION
    NOT NULL, PRIMARY KEY (gateway, endpoint)
);
CREATE TABLE IF NOT EXISTS gateways (
    name TEXT NOT NULL, url TEXT NOT NULL, host TEXT NOT NULL, pid INTEGER NOT NULL,
    cluster TEXT NOT NULL, since DOUBLE PRECISION NOT NULL, seen DOUBLE PRECISION NOT
    NULL, PRIMARY KEY (name)
);
CREATE TABLE IF NOT EXISTS held (
    gateway TEXT NOT NULL, day TEXT NOT NULL, endpoint TEXT NOT NULL, pool TEXT NOT NULL,
    device_seconds DOUBLE PRECISION NOT NULL, cost DOUBLE PRECISION NOT NULL, PRIMARY KEY
    (gateway, day, endpoint, pool)
);
CREATE TABLE IF NOT EXISTS key_rules (
    id INTEGER NOT NULL, required TEXT NOT NULL, stamp TEXT NOT NULL, PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS keys (
    name TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (name)
);
CREATE TABLE IF NOT EXISTS leases (
    run TEXT NOT NULL, epoch INTEGER NOT NULL, at DOUBLE PRECISION NOT NULL, holder TEXT
    NOT NULL, PRIMARY KEY (run), FOREIGN KEY (run) REFERENCES runs (run)
);
CREATE TABLE IF NOT EXISTS lines (
    run TEXT NOT NULL, stage TEXT NOT NULL, pool TEXT NOT NULL, priority INTEGER NOT NULL,
    since DOUBLE PRECISION NOT NULL, devices INTEGER NOT NULL, at DOUBLE PRECISION NOT
    NULL, PRIMARY KEY (run, stage), FOREIGN KEY (run) REFERENCES runs (run)
);
CREATE TABLE IF NOT EXISTS points (
    id {identity} NOT NULL, run TEXT NOT NULL, stage TEXT NOT NULL, attempt INTEGER NOT
    NULL, key TEXT NOT NULL, value DOUBLE PRECISION, step BIGINT NOT NULL, at DOUBLE
    PRECISION NOT NULL, PRIMARY KEY (id), UNIQUE (run, stage, attempt, step, at, key),
    FOREIGN KEY (run) REFERENCES runs (run)
);
CREATE TABLE IF NOT EXISTS reconcilers (
    cluster TEXT NOT NULL, holder TEXT NOT NULL, at DOUBLE PRECISION NOT NULL, PRIMARY KEY
    (cluster)
);
CREATE TABLE IF NOT EXISTS replicas (
    endpoint TEXT NOT NULL, revision INTEGER NOT NULL, urls TEXT NOT NULL, PRIMARY KEY
    (endpoint, revision)
);
CREATE TABLE IF NOT EXISTS results (
    key TEXT NOT NULL, run TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (key)
);
CREATE TABLE IF NOT EXISTS shared_parts (
    digest TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (digest)
);
CREATE TABLE IF NOT EXISTS troubles (
    endpoint TEXT NOT NULL, revision INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY
    (endpoint, revision)
);
CREATE TABLE IF NOT EXISTS untold (
    run TEXT NOT NULL, what TEXT NOT NULL, times BIGINT NOT NULL, reason TEXT NOT NULL,
    PRIMARY KEY (run, what), FOREIGN KEY (run) REFERENCES runs (run)
);
CREATE TABLE IF NOT EXISTS usage (
    gateway TEXT NOT NULL, day TEXT NOT NULL, key TEXT NOT NULL, endpoint TEXT NOT NULL,
    revision TEXT NOT NULL, pool TEXT NOT NULL, requests BIGINT NOT NULL, prompt_tokens
    BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, seconds DOUBLE PRECISION NOT NULL,
    cost DOUBLE PRECISION NOT NULL, PRIMARY KEY (gateway, day, key, endpoint, revision,
    pool)
);
CREATE TABLE IF NOT EXISTS verdicts (
    pool TEXT NOT NULL, role TEXT NOT NULL, identity TEXT NOT NULL, body TEXT NOT NULL,
    PRIMARY KEY (pool, role, identity)
);
CREATE INDEX IF NOT EXISTS ix_held_day ON held (day);
CREATE INDEX IF NOT EXISTS ix_runs_at ON runs (at);
CREATE INDEX IF NOT EXISTS ix_usage_day ON usage (day);
"""
IDENTITY = {"sqlite": "INTEGER", "postgresql": "BIGSERIAL"}


def upgrade() -> None:
    """Make what is missing."""
    identity = IDENTITY[op.get_bind().dialect.name]
    for statement in TABLES.replace("{identity}", identity).split(";"):
        if statement.strip():
            op.execute(statement)
