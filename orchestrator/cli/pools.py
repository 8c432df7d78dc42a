"""`orchestrator pools`: the pools of the fleet, and their state."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping

from orchestrator import wiring
from orchestrator.cli import composing, emptying, tables
from orchestrator.cli.exits import Exit
from orchestrator.core.spec import Pool
from orchestrator.messages import PoolStatus

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
    "STATUS",
)


def run(args: argparse.Namespace) -> Exit:
    """List the pools; their live state too, where the cluster is up."""
    if args.overrides[:1] in (["drain"], ["undrain"]):
        return emptying.run(args)
    if composing.shown(args):
        return Exit.SUCCEEDED
    found = composing.settings(args)
    at = wiring.home()
    live = wiring.pool_states(found, at)
    drained = wiring.event_store(at).drained()
    pools = found.fleet.pools
    if args.json:
        print(json.dumps([_json(pool, live, drained) for pool in pools.values()], indent=2))
        return Exit.SUCCEEDED
    out = tables.console()
    out.print(f"Fleet [bold]{found.fleet.name}[/]\n")
    out.print(tables.table(COLUMNS, (_row(pool, live, drained) for pool in pools.values())))
    bound = [(f"roles.{role}", name) for role, name in found.bindings.roles.items()]
    out.print("\n" + "   ".join(f"{role}={name}" for role, name in bound))
    commands = [
        ("To switch a role to another pool:", "orchestrator launch roles.train=POOL"),
        ("To empty a pool:", "orchestrator pools drain POOL --reason WHY"),
        ("To see another fleet:", "orchestrator pools fleet=r2"),
    ]
    out.print(tables.useful_commands(commands))
    return Exit.SUCCEEDED


def _status(pool: Pool, live: Mapping[str, PoolStatus], drained: Mapping[str, str]) -> str:
    if not pool.available:
        return f"unavailable: {pool.reason}"
    if pool.name in drained:
        return f"being emptied: {drained[pool.name]}"
    return str(live[pool.name].state) if pool.name in live else "not started"


def _row(
    pool: Pool, live: Mapping[str, PoolStatus], drained: Mapping[str, str]
) -> tuple[str, ...]:
    chip = pool.accelerator
    return (
        pool.name,
        chip.name + (" (emulated)" if pool.emulated else ""),
        chip.vendor,
        str(pool.nodes),
        str(pool.devices),
        str(live[pool.name].free) if pool.name in live else "-",
        " ".join(chip.formats),
        " ".join(pool.allowed_roles),
        tables.dollars(pool.price),
        _status(pool, live, drained),
    )


def _json(
    pool: Pool, live: Mapping[str, PoolStatus], drained: Mapping[str, str]
) -> dict[str, object]:
    return {
        "pool": pool.name,
        "accelerator": pool.accelerator.name,
        "vendor": pool.accelerator.vendor,
        "emulated": pool.emulated,
        "nodes": pool.nodes,
        "devices": pool.devices,
        "free": live[pool.name].free if pool.name in live else None,
        "formats": list(pool.accelerator.formats),
        "roles": list(pool.allowed_roles),
        "price_per_hour": pool.price,
        "available": pool.available,
        "drained": drained.get(pool.name),
        "status": _status(pool, live, drained),
    }
