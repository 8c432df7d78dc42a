"""The tables.

A change of them is a step in `migrations/versions` too, and `HEAD` in `schema_version.py`.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
_Id = BigInteger().with_variant(Integer(), "sqlite")

runs = Table(
    "runs",
    metadata,
    Column("run", Text, primary_key=True),
    Column("at", Double, nullable=False, index=True),
    Column("header", Text, nullable=False),
    Column("cancel", Boolean, nullable=False),
)

shared_parts = Table(  # of headers, by the digest of their text
    "shared_parts",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
)

# SQLite keeps NaN as NULL; so do we, everywhere.
points = Table(
    "points",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("run", Text, ForeignKey("runs.run"), nullable=False),
    Column("stage", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", Double),
    Column("step", BigInteger, nullable=False),
    Column("at", Double, nullable=False),
    UniqueConstraint("run", "stage", "attempt", "step", "at", "key"),
)

cursors = Table(
    "cursors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

leases = Table(
    "leases",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("holder", Text, nullable=False),
)

drains = Table(
    "drains",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("reason", Text, nullable=False),
)

unused_nodes = Table(
    "unused_nodes",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("until", Double),  # none: until somebody releases it
)

approvals = Table(
    "approvals",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("who", Text, nullable=False),
)

queues = Table(
    "queues",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("pool", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("since", Double, nullable=False),
    Column("devices", Integer, nullable=False),
    Column("at", Double, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("pool", Text, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("identity", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

endpoint_events = Table(
    "endpoint_events",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("seq", Integer, primary_key=True, autoincrement=False),
    Column("at", Double, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", Text, nullable=False),
)

replicas = Table(
    "replicas",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("urls", Text, nullable=False),
)

troubles = Table(
    "troubles",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("reason", Text, nullable=False),
)

reconcilers = Table(
    "reconcilers",
    metadata,
    Column("cluster", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("at", Double, nullable=False),
)

asked = Table(
    "asked",
    metadata,
    Column("endpoint", Text, primary_key=True),
    Column("at", Double, nullable=False),
)

gateways = Table(
    "gateways",
    metadata,
    Column("name", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("cluster", Text, nullable=False),
    Column("since", Double, nullable=False),
    Column("seen", Double, nullable=False),
)

gateway_counts = Table(
    "gateway_counts",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("body", Text, nullable=False),
    Column("at", Double, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("name", Text, primary_key=True),
    Column("body", Text, nullable=False),
)

# One row, once anything was said or changed: whether keys are asked for, and the newest stamp.
key_rules = Table(
    "key_rules",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("required", Text, nullable=False),
    Column("stamp", Text, nullable=False),
)

# What each gateway has noted; together it is their sum.
usage = Table(
    "usage",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("day", Text, primary_key=True, index=True),
    Column("key", Text, primary_key=True),
    Column("endpoint", Text, primary_key=True),
    Column("revision", Text, primary_key=True),
    Column("pool", Text, primary_key=True),
    Column("requests", BigInteger, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("cost", Double, nullable=False),
)

# What each gateway has seen held: all see the same replicas.
held = Table(
    "held",
    metadata,
    Column("gateway", Text, primary_key=True),
    Column("day", Text, primary_key=True, index=True),
    Column("endpoint", Text, primary_key=True),
    Column("pool", Text, primary_key=True),
    Column("device_seconds", Double, nullable=False),
    Column("cost", Double, nullable=False),
)

log_chunks = Table(
    "log_chunks",
    metadata,
    Column("id", _Id, primary_key=True),
    Column("run", Text, ForeignKey("runs.run"), nullable=False),
    Column("stage", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("at", Double, nullable=False),
    Column("text", Text, nullable=False),
    Column("page", Text, nullable=False),
    UniqueConstraint("run", "stage", "attempt", "at"),
)

reports = Table(
    "reports",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("text", Text, nullable=False),
)

progress = Table(
    "progress",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
)

untold = Table(
    "untold",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("what", Text, primary_key=True),
    Column("times", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

busy = Table(
    "busy",
    metadata,
    Column("run", Text, ForeignKey("runs.run"), primary_key=True),
    Column("stage", Text, primary_key=True),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("what", Text, nullable=False),
    Column("since", Double, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("key", Text, primary_key=True),
    Column("run", Text, nullable=False),
    Column("body", Text, nullable=False),
)
