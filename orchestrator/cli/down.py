"""`orchestrator down`: stop all that runs on this machine."""

from __future__ import annotations

import argparse

from orchestrator import wiring
from orchestrator.cli.exits import Exit


def run(args: argparse.Namespace) -> Exit:  # noqa: ARG001 - every verb has this form
    """Stop the cluster, with its endpoints, and the tracking server; state stays."""
    at = wiring.home()
    stopped = [
        name
        for name, stop in (
            ("reaper", wiring.stop_reaper),
            ("cluster", wiring.stop_cluster),
            ("MLflow", wiring.stop_tracking),
        )
        if stop(at)
    ]
    print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
    return Exit.SUCCEEDED
