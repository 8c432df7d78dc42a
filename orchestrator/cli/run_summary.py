"""How a run ended, and what to type next."""

from __future__ import annotations

import sys
from collections.abc import Callable

from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunState
from orchestrator.core.text import visible
from orchestrator.display import tables
from orchestrator.service import runs


def show(final: Run, write: Callable[..., None]) -> None:
    """Write how a run ended, and what to type next."""
    took = tables.duration(final.seconds(final.ended or 0.0))
    write(f"\nRun [bold]{final.header.run}[/] {final.state} after {took}.")
    if final.reason:
        print(visible(final.reason), file=sys.stderr)
    again = {RunState.FAILED: "To go on once it is mended:", RunState.PAUSED: "To go on:"}
    served = runs.served(final)
    lines = [("To ask the model:", f'orchestrator ask -e {name} "..."') for name in served]
    lines += [
        ("To see the stages:", f"orchestrator status {final.header.run}"),
        ("To read the logs:", f"orchestrator logs {final.header.run}"),
        ("To review in MLflow:", "orchestrator ui"),
    ]
    if final.state in again:
        lines.insert(0, (again[final.state], f"orchestrator resume {final.header.run}"))
    if served:
        lines.append(("To stop serving:", "orchestrator down"))
    write(tables.useful_commands(lines))
