"""The pools of a fleet as tables, and as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from rich.table import Table

from orchestrator.core.spec.hardware import Pool
from orchestrator.core.trust.qualification import Standing, Verdict
from orchestrator.display import tables
from orchestrator.service.pools import PoolStates

COLUMNS = (
    "POOL",
    "ACCELERATOR",
    "VENDOR",
    "NODES",
    "DEVICES",
    "FREE",
    "FORMATS",
    "ROLES",
    "$/H",
    "QUALIFIED",
    "STATUS",
)
NODE_COLUMNS = ("POOL", "NODE", "DEVICES", "FREE", "HEALTH")
QUEUE_COLUMNS = ("POOL", "STAGE", "PRIORITY", "DEVICES", "FOR")


def table(states: PoolStates) -> Table:
    """Return the table of pools."""
    return tables.table(COLUMNS, (_row(pool, states) for pool in states.fleet.pools.values()))


def of_nodes(states: PoolStates) -> Table:
    """Return the table of nodes; it has no rows where no cluster is up."""
    rows = (row for pool in states.fleet.pools for row in _nodes(pool, states))
    return tables.table(NODE_COLUMNS, rows)


def of_queue(states: PoolStates) -> Table:
    """Return the table of what waits, first who goes first."""
    rows = (row for pool in states.fleet.pools for row in _waiting(pool, states))
    return tables.table(QUEUE_COLUMNS, rows)


def _qualified(pool: Pool, states: PoolStates) -> str:
    marks = {Standing.QUALIFIED: "", Standing.LIMITED: " (limits)", Standing.REFUSED: " refused"}
    words = (
        f"{role}{marks[verdict.standing]}" for role, verdict in states.verdicts_of(pool).items()
    )
    return ", ".join(words) or "-"


def _row(pool: Pool, states: PoolStates) -> tuple[str, ...]:
    chip = pool.accelerator
    return (
        pool.name,
        chip.name + (" (emulated)" if pool.emulated else ""),
        chip.vendor,
        str(pool.nodes),
        str(pool.devices),
        str(states.live[pool.name].free) if pool.name in states.live else "-",
        " ".join(chip.formats),
        " ".join(pool.allowed_roles),
        tables.dollars(pool.price),
        _qualified(pool, states),
        states.status(pool),
    )


def _nodes(pool: str, states: PoolStates) -> Iterator[tuple[str, ...]]:
    for node in _members(pool, states):
        devices = "-" if node["devices"] is None else str(node["devices"])
        free = "-" if node["free"] is None else str(node["free"])
        yield pool, str(node["node"]), devices, free, str(node["health"])


def _members(pool: str, states: PoolStates) -> list[dict[str, object]]:
    """Return the nodes of a pool: those that live, and those that are not to be used."""
    status = states.live.get(pool)
    live = {member.name: member for member in status.members} if status else {}
    names = dict.fromkeys((*live, *states.unused_of(pool)))
    return [
        {
            "node": name,
            "devices": live[name].devices if name in live else None,
            "free": live[name].free if name in live else None,
            "health": states.health(pool, name),
        }
        for name in names
    ]


def _waiting(pool: str, states: PoolStates) -> Iterator[tuple[str, ...]]:
    for entry in states.waiting_for(pool):
        waited = tables.duration(states.now - entry.since)
        yield pool, f"{entry.run}/{entry.stage}", str(entry.priority), str(entry.devices), waited


def as_json(pool: Pool, states: PoolStates) -> dict[str, object]:
    """Return what is known of a pool as plain values."""
    return {
        "pool": pool.name,
        "accelerator": pool.accelerator.name,
        "vendor": pool.accelerator.vendor,
        "emulated": pool.emulated,
        "nodes": pool.nodes,
        "devices": pool.devices,
        "free": states.live[pool.name].free if pool.name in states.live else None,
        "formats": list(pool.accelerator.formats),
        "roles": list(pool.allowed_roles),
        "price_per_hour": pool.price,
        "available": pool.available,
        "drained": states.drained.get(pool.name),
        "qualified": {
            str(role): _verdict(verdict) for role, verdict in states.verdicts_of(pool).items()
        },
        "members": _members(pool.name, states),
        "queue": [asdict(entry) for entry in states.waiting_for(pool.name)],
        "not_measured": list(states.strange(pool)),
        "status": states.status(pool),
    }


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {
        "verdict": str(verdict.standing),
        "reasons": list(verdict.reasons),
        "run": verdict.run,
        "at": verdict.at,
        "until": verdict.until,
    }
