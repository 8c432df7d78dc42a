"""`orchestrator down`: stop all that runs on this machine."""

from __future__ import annotations

import argparse

from orchestrator import wiring
from orchestrator.cli.exits import Exit


def run(args: argparse.Namespace) -> Exit:  # noqa: ARG001 - every verb has this form
    """Stop the cluster, with its endpoints, and the tracking server; state stays."""
    at = wiring.home()
    stops = {
        "reaper": wiring.stop_reaper,
        "gateway": wiring.stop_gateway,  # and the keeper, which would deploy anew what goes
        "cluster": wiring.stop_cluster,
        "MLflow": wiring.stop_tracking,
    }
    stopped = [name for name, stop in stops.items() if stop(at)]
    if "cluster" in stopped:
        wiring.forget_endpoints(at, "stopped by `orchestrator down`")
    print(f"Stopped: {', '.join(stopped)}." if stopped else "Nothing was running.")
    return Exit.SUCCEEDED
