"""`orchestrator ui`: open the runs in the MLflow UI."""

from __future__ import annotations

import argparse
import webbrowser

from orchestrator.cli.exits import Exit
from orchestrator.display import tables
from orchestrator.service.home_services import views


def run(args: argparse.Namespace) -> Exit:
    """Have MLflow up, print the addresses of the ready-made views, and open the first."""
    links = views()
    out = tables.console()
    out.print(tables.table(("VIEW", "ADDRESS"), links.items()))
    out.print(tables.useful_commands([("To stop MLflow:", "orchestrator down")]))
    if not args.no_browser:
        webbrowser.open(next(iter(links.values())))
    return Exit.SUCCEEDED
