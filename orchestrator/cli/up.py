"""`orchestrator up`: start the cluster and MLflow on this machine, and leave them up."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial

from orchestrator import session, wiring
from orchestrator.cli import composing, tables
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Pool


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Start what is not up for the fleet of the config."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    found = composing.settings(args)
    usable = {name: pool for name, pool in found.fleet.pools.items() if pool.available}
    what = f"have the cluster up with pools {', '.join(usable)}, and MLflow"
    return [Step(what, partial(_start, found, usable, composing.again(args)))]


def _start(found: Settings, usable: Mapping[str, Pool], again: str) -> None:
    with session.services(found, wiring.home(), usable, keep=lambda: True) as addresses:
        print(f"Cluster: {addresses.cluster or 'in this process'}")
        print(f"MLflow:  {addresses.tracking or 'off'}")
    commands = [
        (
            "To run a pipeline:",
            f"orchestrator launch {again}" if again else "orchestrator launch pipeline=r2",
        ),
        ("To see the pools:", f"orchestrator pools {again}".rstrip()),
        ("To stop all:", "orchestrator down"),
    ]
    tables.console().print(tables.useful_commands(commands))
