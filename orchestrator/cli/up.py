"""`orchestrator up`: start the cluster and MLflow on this machine, and leave them up."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
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
    change = up(composing.source(args).settings())
    return [Step.of(change, partial(_tell, composing.again(args)))]


def _tell(again: str, addresses: Addresses) -> None:
    print(f"Cluster: {addresses.cluster or 'in this process'}")
    print(f"MLflow:  {addresses.tracking or 'off'}")
    commands = [
        ("To run a pipeline:", f"orchestrator launch {again or 'pipeline=r2'}"),
        ("To see the pools:", f"orchestrator pools {again}".rstrip()),
        ("To stop all:", "orchestrator down"),
    ]
    tables.console().print(tables.useful_commands(commands))
