"""`orchestrator up`: start the cluster, MLflow and the gateway on this machine, and leave them up.

With `--block` they are up until the command is interrupted: for containers and supervisors.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

from orchestrator.cli import composing
from orchestrator.cli.exits import Exit
from orchestrator.cli.steps import Step
from orchestrator.display import tables
from orchestrator.service.driving import Addresses
from orchestrator.service.home_services import up


def run(args: argparse.Namespace) -> Exit | Sequence[Step]:
    """Start what is not up for the fleet of the config."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    settings, again = composing.settings(args), composing.again(args)
    if args.block:
        return [Step.of(up(settings, partial(_stay, again)), lambda _: None)]
    return [Step.of(up(settings), partial(_tell, again))]


def _stay(again: str, addresses: Addresses) -> None:
    with suppress(KeyboardInterrupt):  # SIGTERM, too
        _tell(again, addresses)
        sys.stdout.flush()
        threading.Event().wait()


def _tell(again: str, addresses: Addresses) -> None:
    print(f"Cluster: {addresses.cluster or 'in this process'}")
    print(f"MLflow:  {addresses.tracking or 'off'}")
    commands = [
        ("To run a pipeline:", f"orchestrator launch {again or 'pipeline=r2'}"),
        ("To see the pools:", f"orchestrator pools {again}".rstrip()),
        ("To stop all:", "orchestrator down"),
    ]
    tables.console().print(tables.useful_commands(commands))
