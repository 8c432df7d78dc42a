"""`orchestrator pools`: the pools of the fleet, and their state."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from orchestrator.cli import composing, emptying
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.display import pools as display
from orchestrator.display import tables
from orchestrator.service.pools import pools


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """List the pools; their live state too, where the cluster is up."""
    if args.overrides[:1] in (["drain"], ["undrain"]):
        return emptying.run(args)
    if composing.shown(args):
        return Exit.SUCCEEDED
    settings = composing.settings(args)
    known = pools(settings)
    if args.json:
        print(
            tables.as_json([display.as_json(pool, known) for pool in known.fleet.pools.values()])
        )
        return Exit.SUCCEEDED
    out = tables.console()
    out.print(f"Fleet [bold]{known.fleet.name}[/]\n")
    out.print(display.table(known))
    nodes, waiting = display.of_nodes(known), display.of_queue(known)
    if nodes.rows:
        out.print("\n[bold]Nodes[/]\n")
        out.print(nodes)
    if waiting.rows:
        out.print("\n[bold]Waiting[/], first who goes first\n")
        out.print(waiting)
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
