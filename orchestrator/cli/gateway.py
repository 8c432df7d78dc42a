"""`orchestrator _gateway SETTINGS URL CLUSTER [NUMBER]`: the service that answers clients."""

from __future__ import annotations

import argparse

from orchestrator.cli.exits import Exit
from orchestrator.service.daemons import gateway


def run(args: argparse.Namespace) -> Exit:
    """Serve until a signal ends the process; answers in progress end first."""
    gateway.run(args.settings, args.url, args.cluster, args.number)
    return Exit.SUCCEEDED
