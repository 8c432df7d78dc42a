"""`orchestrator pools`: the pools of the fleet, and their state."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from orchestrator.cli import composing, emptying
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.core.spec.hardware import Pool
from orchestrator.core.trust.qualification import Standing, Verdict
from orchestrator.display import tables
from orchestrator.service.pools import PoolStates, pools

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


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """List the pools; their live state too, where the cluster is up."""
    if args.overrides[:1] in (["drain"], ["undrain"]):
        return emptying.run(args)
    if composing.shown(args):
        return Exit.SUCCEEDED
    settings = composing.settings(args)
    known = pools(settings)
    if args.json:
        print(tables.as_json([_json(pool, known) for pool in known.fleet.pools.values()]))
        return Exit.SUCCEEDED
    out = tables.console()
    out.print(f"Fleet [bold]{known.fleet.name}[/]\n")
    out.print(tables.table(COLUMNS, (_row(pool, known) for pool in known.fleet.pools.values())))
    nodes = [row for pool in known.fleet.pools for row in _nodes(pool, known)]
    if nodes:
        out.print("\n[bold]Nodes[/]\n")
        out.print(tables.table(NODE_COLUMNS, nodes))
    waiting = [row for pool in known.fleet.pools for row in _waiting(pool, known)]
    if waiting:
        out.print("\n[bold]Waiting[/], first who goes first\n")
        out.print(tables.table(QUEUE_COLUMNS, waiting))
    bound = [(f"roles.{role}", name) for role, name in settings.bindings.roles.items()]
    out.print("\n" + "   ".join(f"{role}={name}" for role, name in bound))
    again = composing.again(args)
    commands = [
        ("To switch a role to another pool:", f"orchestrator launch {again} roles.train=POOL"),
        ("To find out what a pool can do:", f"orchestrator qualify POOL {again}"),
        ("To empty a pool or a node:", f"orchestrator pools drain NAME --reason WHY {again}"),
        ("To see another fleet:", "orchestrator pools fleet=r2"),
    ]
    out.print(tables.useful_commands([(what, " ".join(line.split())) for what, line in commands]))
    return Exit.SUCCEEDED


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


def _json(pool: Pool, known: PoolStates) -> dict[str, object]:
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
