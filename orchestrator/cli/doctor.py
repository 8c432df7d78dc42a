"""`orchestrator doctor`: check this machine, and what runs on it."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from orchestrator.cli import composing, flags
from orchestrator.cli.exits import Exit
from orchestrator.display import tables
from orchestrator.service.doctor import checks


def run(args: argparse.Namespace) -> Exit:
    """Print each check; the exit code is 1 when any is an error."""
    if composing.shown(args):
        return Exit.SUCCEEDED
    named = args.overrides or args.config_dir or args.config_name != flags.CONFIG_NAME
    done = list(checks(composing.source(args) if named else None))
    if args.json:
        print(tables.as_json([asdict(check) for check in done]))
    else:
        rows = [(check.check, check.status, check.finding) for check in done]
        tables.console().print(tables.table(("CHECK", "STATUS", "FINDING"), rows))
    failed = any(check.status == "error" for check in done)
    return Exit.ERROR if failed else Exit.SUCCEEDED
