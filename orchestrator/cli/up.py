"""`orchestrator up`: start the cluster and MLflow on this machine, and leave them up."""

from __future__ import annotations

import argparse

from orchestrator import session, wiring
from orchestrator.cli import composing, tables
from orchestrator.cli.exits import Exit


def run(args: argparse.Namespace) -> Exit:
    """Start what is not up for the fleet of the config."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    found = composing.settings(args)
    usable = {name: pool for name, pool in found.fleet.pools.items() if pool.available}
    with session.services(found, wiring.home(), usable, keep=lambda: True) as addresses:
        print(f"Cluster: {addresses.cluster or 'in this process'}")
        print(f"MLflow:  {addresses.tracking or 'off'}")
    commands = [
        ("To run a pipeline:", "orchestrator launch pipeline=r2"),
        ("To see the pools:", "orchestrator pools"),
        ("To stop all:", "orchestrator down"),
    ]
    tables.console().print(tables.useful_commands(commands))
    return Exit.SUCCEEDED
