"""`orchestrator status`: the runs, or the stages of one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from orchestrator.cli.exits import Exit, of_state
from orchestrator.core.runs.retention import WITH_A_WAY_BACK
from orchestrator.display import runs as display
from orchestrator.display import tables
from orchestrator.service import runs
from orchestrator.service.status import RunStatus, newest, status


def run(args: argparse.Namespace) -> Exit:
    """List the newest runs, or the stages of one; its exit code tells that run's state."""
    if args.run is None:
        _list(newest(args.limit), as_json=args.json)
        return Exit.SUCCEEDED
    seen = status(args.run)
    if args.json:
        print(tables.as_json(display.as_json(seen)))
    else:
        _show(seen)
    return of_state(seen.run.state)


def _list(listed: Sequence[RunStatus], *, as_json: bool) -> None:
    if as_json:
        print(tables.as_json([display.as_json(seen) for seen in listed]))
        return
    out = tables.console()
    if not listed:
        out.print("No runs yet. Launch one: orchestrator launch pipeline=r2")
        return
    out.print(display.of_runs(listed))
    first = listed[0].run.header.run
    lost = [seen.run.header.run for seen in listed if seen.lost]
    commands = [
        ("To see the stages of one:", f"orchestrator status {first}"),
        ("To read its logs:", f"orchestrator logs {first}"),
        ("To review in MLflow:", "orchestrator ui"),
    ]
    commands += [("To go on with a lost one:", f"orchestrator resume {name}") for name in lost[:1]]
    out.print(tables.useful_commands(commands))


def _show(status: RunStatus) -> None:
    out, run = tables.console(), status.run
    marked = " [yellow](emulated pools)[/]" if run.plan.emulated else ""
    out.print(f"Run [bold]{run.header.run}[/] {run.state}{marked}")
    if run.reason:
        out.print(run.reason, markup=False)
    if status.lost:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(status.at))
        ago = tables.duration(status.silent)
        gone = "its controller is gone since" if run.epoch else "nobody has begun it since"
        out.print(f"[red]{display.LOST}[/]: {gone} {since} ({ago} ago)")
    if status.driver:
        out.print(f"driven by {status.driver}", markup=False)
    for untold in status.untold:
        out.print(f"note: {untold}", style="yellow", markup=False)
    out.print()
    out.print(display.of_stages(status))
    if any(attempt.failure for stage in run.stages.values() for attempt in stage.attempts):
        out.print()
        out.print(display.of_attempts(status))
    name = run.header.run
    commands = [("To read the logs:", f"orchestrator logs {name}")]
    commands += [("To ask the model:", f'orchestrator ask -e {e} "..."') for e in runs.served(run)]
    if status.lost or run.state in WITH_A_WAY_BACK:
        commands.append(("To go on with it:", f"orchestrator resume {name}"))
    if not run.done:
        commands.append(("To end it:", f"orchestrator cancel {name}"))
    out.print(tables.useful_commands(commands))
