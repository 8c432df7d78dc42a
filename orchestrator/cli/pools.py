"""`orchestrator pools`: the pools of the fleet, and their state."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import wiring
from orchestrator.cli import composing, emptying, tables
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.controller.outlook import drained_in
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.trust.qualification import (
    EARNED,
    Standing,
    Verdict,
    not_measured,
    verdict_of,
)
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
    "QUALIFIED",
    "STATUS",
)


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """List the pools; their live state too, where the cluster is up."""
    if args.overrides[:1] in (["drain"], ["undrain"]):
        return emptying.run(args)
    if composing.shown(args):
        return Exit.SUCCEEDED
    found = composing.settings(args)
    at = wiring.home()
    live = wiring.pool_states(found, at)
    store = wiring.event_store(at)
    drained = drained_in(found.fleet.name, store)
    pools = found.fleet.pools
    known = Known(live, drained, store.verdicts(), wiring.clock().now())
    asked = {n: one for n, one in pools.items() if found.qualification.ask_for_one(one)}
    trusted = {name: pool for name, pool in asked.items() if known.of(pool)}
    known = replace(known, nodes=wiring.nodes_of(found, at, trusted))
    if args.json:
        print(tables.as_json([_json(pool, known) for pool in pools.values()]))
        return Exit.SUCCEEDED
    out = tables.console()
    out.print(f"Fleet [bold]{found.fleet.name}[/]\n")
    out.print(tables.table(COLUMNS, (_row(pool, known) for pool in pools.values())))
    bound = [(f"roles.{role}", name) for role, name in found.bindings.roles.items()]
    out.print("\n" + "   ".join(f"{role}={name}" for role, name in bound))
    again = composing.again(args)
    commands = [
        ("To switch a role to another pool:", f"orchestrator launch {again} roles.train=POOL"),
        ("To find out what a pool can do:", f"orchestrator qualify POOL {again}"),
        ("To empty a pool:", f"orchestrator pools drain POOL --reason WHY {again}"),
        ("To see another fleet:", "orchestrator pools fleet=r2"),
    ]
    out.print(tables.useful_commands([(what, " ".join(line.split())) for what, line in commands]))
    return Exit.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the pools at `now` (seconds, epoch)."""

    live: Mapping[str, PoolStatus]
    drained: Mapping[str, str]
    verdicts: Sequence[Verdict]
    now: float
    nodes: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def of(self, pool: Pool) -> dict[Role, Verdict]:
        """Return the verdicts that hold for a pool."""
        found = {role: verdict_of(pool, role, self.verdicts, self.now) for role in EARNED}
        return {role: one for role, one in found.items() if one is not None}

    def strange(self, pool: Pool) -> tuple[str, ...]:
        """Return the live nodes of a pool that one of its verdicts is not of."""
        live = self.nodes.get(pool.name, {})
        found = (name for one in self.of(pool).values() for name in one.strange(live))
        return tuple(dict.fromkeys(found))


def _status(pool: Pool, known: Known) -> str:
    if not pool.available:
        return f"unavailable: {pool.reason}"
    if pool.name in known.drained:
        return f"being emptied: {known.drained[pool.name]}"
    strange = known.strange(pool)
    if strange:
        return not_measured(pool.name, strange)
    return str(known.live[pool.name].state) if pool.name in known.live else "not started"


def _qualified(pool: Pool, known: Known) -> str:
    told = {Standing.QUALIFIED: "", Standing.LIMITED: " (limits)", Standing.REFUSED: " refused"}
    found = (f"{role}{told[one.standing]}" for role, one in known.of(pool).items())
    return ", ".join(found) or "-"


def _row(pool: Pool, known: Known) -> tuple[str, ...]:
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
        _status(pool, known),
    )


def _json(pool: Pool, known: Known) -> dict[str, object]:
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
        "qualified": {str(role): _verdict(one) for role, one in known.of(pool).items()},
        "not_measured": list(known.strange(pool)),
        "status": _status(pool, known),
    }


def _verdict(one: Verdict) -> dict[str, object]:
    return {
        "verdict": str(one.standing),
        "reasons": list(one.reasons),
        "run": one.run,
        "at": one.at,
        "until": one.until,
    }
