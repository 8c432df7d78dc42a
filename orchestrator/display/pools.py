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


def table(known: PoolStates) -> Table:
    """Return the table of pools."""
    return tables.table(COLUMNS, (_row(pool, known) for pool in known.fleet.pools.values()))


def of_nodes(known: PoolStates) -> Table:
    """Return the table of nodes; it has no rows where no cluster is up."""
    rows = (row for pool in known.fleet.pools for row in _nodes(pool, known))
    return tables.table(NODE_COLUMNS, rows)


def of_queue(known: PoolStates) -> Table:
    """Return the table of what waits, first who goes first."""
    rows = (row for pool in known.fleet.pools for row in _waiting(pool, known))
    return tables.table(QUEUE_COLUMNS, rows)


def _qualified(pool: Pool, known: PoolStates) -> str:
    marks = {Standing.QUALIFIED: "", Standing.LIMITED: " (limits)", Standing.REFUSED: " refused"}
    words = (
        f"{role}{marks[verdict.standing]}" for role, verdict in known.verdicts_of(pool).items()
    )
    return ", ".join(words) or "-"


def _row(pool: Pool, known: PoolStates) -> tuple[str, ...]:
    chip = pool.accelerator
    return (
        pool.name,
        chip.name + (" (emulated)" if pool.emulated else ""),
        chip.vendor,
        str(pool.nodes),
        str(pool.devices),
        str(known.live[pool.name].free) if pool.name in known.live else "-",
        " ".join(chip.formats),
        " ".join(pool.allowed_roles),
        tables.dollars(pool.price),
        _qualified(pool, known),
        known.status(pool),
    )


def _nodes(pool: str, known: PoolStates) -> Iterator[tuple[str, ...]]:
    for node in _members(pool, known):
        devices = "-" if node["devices"] is None else str(node["devices"])
        free = "-" if node["free"] is None else str(node["free"])
        yield pool, str(node["node"]), devices, free, str(node["health"])


def _members(pool: str, known: PoolStates) -> list[dict[str, object]]:
    """Return the nodes of a pool: those that live, and those that are not to be used."""
    status = known.live.get(pool)
    live = {member.name: member for member in status.members} if status else {}
    names = dict.fromkeys((*live, *known.unused_of(pool)))
    return [
        {
            "node": name,
            "devices": live[name].devices if name in live else None,
            "free": live[name].free if name in live else None,
            "health": known.health(pool, name),
        }
        for name in names
    ]


def _waiting(pool: str, known: PoolStates) -> Iterator[tuple[str, ...]]:
    for entry in known.waiting_for(pool):
        waited = tables.duration(known.now - entry.since)
        yield pool, f"{entry.run}/{entry.stage}", str(entry.priority), str(entry.devices), waited


def as_json(pool: Pool, known: PoolStates) -> dict[str, object]:
    """Return what is known of a pool as plain values."""
    return {
        "pool": pool.name,
        "accelerator": pool.accelerator.name,
        "vendor": pool.accelerator.vendor,
        "emulated": pool.emulated,
        "nodes": pool.nodes,
        "devices": pool.devices,
        "free": known.live[pool.name].free if pool.name in known.live else None,
        "formats": list(pool.accelerator.formats),
        "roles": list(pool.allowed_roles),
        "price_per_hour": pool.price,
        "available": pool.available,
        "drained": known.drained.get(pool.name),
        "qualified": {
            str(role): _verdict(verdict) for role, verdict in known.verdicts_of(pool).items()
        },
        "members": _members(pool.name, known),
        "queue": [asdict(entry) for entry in known.waiting_for(pool.name)],
        "not_measured": list(known.strange(pool)),
        "status": known.status(pool),
    }


def _verdict(verdict: Verdict) -> dict[str, object]:
    return {
        "verdict": str(verdict.standing),
        "reasons": list(verdict.reasons),
        "run": verdict.run,
        "at": verdict.at,
        "until": verdict.until,
    }
