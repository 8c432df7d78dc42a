"""`orchestrator status`: the runs, or the stages of one."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator

from orchestrator import wiring
from orchestrator.cli import runs, tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.control.presence import Presence
from orchestrator.core.run import Run, StageRun, stage_cost
from orchestrator.core.state import StageState
from orchestrator.ports import EventStore

LOST = "lost"

RUN_COLUMNS = ("RUN", "PIPELINE", "POOL", "SUBMITTED", "DURATION", "#FAILOVERS", "STATUS")
STAGE_COLUMNS = (
    "STAGE",
    "ROLE",
    "POOL",
    "DEVICES",
    "#ATTEMPTS",
    "#FAILOVERS",
    "DURATION",
    "COST",
    "STATUS",
    "REASON",
)


def run(args: argparse.Namespace) -> Exit:
    """List the newest runs, or the stages of one; its exit code tells that run's state."""
    store = wiring.event_store(wiring.home())
    now = wiring.clock().now()
    if args.run is None:
        found = [runs.load(store, header) for header in store.runs(args.limit)]
        _list([(one, runs.presence(store, one)) for one in found], now, as_json=args.json)
        return Exit.SUCCEEDED
    one = runs.load(store, store.header(args.run))
    there = runs.presence(store, one)
    if args.json:
        print(json.dumps(_run_json(one, there, now), indent=2))
    else:
        _show(one, _lost(store, one, now) if there is Presence.GONE else "", now)
    return of_state(one.state)


def _lost(store: EventStore, one: Run, now: float) -> str:
    """Return since when nobody has the run, as a line."""
    sign = runs.last_sign(store, one)
    since = time.strftime("%H:%M:%S", time.localtime(sign))
    return f"its controller is gone since {since} ({tables.duration(now - sign)} ago)"


def _list(found: list[tuple[Run, Presence | None]], now: float, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_run_json(one, there, now) for one, there in found], indent=2))
        return
    out = tables.console()
    if not found:
        out.print("No runs yet. Launch one: orchestrator launch pipeline=r2")
        return
    out.print(tables.table(RUN_COLUMNS, (_run_row(one, there, now) for one, there in found)))
    newest = found[0][0].header.run
    lost = [one.header.run for one, there in found if there is Presence.GONE]
    commands = [
        ("To see the stages of one:", f"orchestrator status {newest}"),
        ("To read its logs:", f"orchestrator logs {newest}"),
        ("To review in MLflow:", "orchestrator ui"),
    ]
    commands += [("To go on with a lost one:", f"orchestrator resume {name}") for name in lost[:1]]
    out.print(tables.useful_commands(commands))


def _run_row(one: Run, there: Presence | None, now: float) -> tuple[str, ...]:
    submitted = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.header.created))
    took = None if one.started is None else (one.ended or now) - one.started
    return (
        one.header.run,
        one.plan.pipeline,
        " ".join(runs.tried(one)) or "-",
        submitted,
        tables.duration(took),
        str(one.failovers),
        LOST if there is Presence.GONE else one.state,
    )


def _show(one: Run, lost: str, now: float) -> None:
    out = tables.console()
    marked = " [yellow](emulated pools)[/]" if one.plan.emulated else ""
    out.print(f"Run [bold]{one.header.run}[/] {one.state}{marked}")
    if one.reason:
        out.print(one.reason, markup=False)
    if lost:
        out.print(f"[red]{LOST}[/]: {lost}")
    out.print()
    rows = (tuple(_stage_row(one, stage, now)) for stage in one.stages.values())
    out.print(tables.table(STAGE_COLUMNS, rows))
    name = one.header.run
    commands = [("To read the logs:", f"orchestrator logs {name}")]
    commands += [("To ask the model:", f'orchestrator ask -e {e} "..."') for e in runs.served(one)]
    if lost:
        commands.append(("To go on with it:", f"orchestrator resume {name}"))
    if not one.done:
        commands.append(("To end it:", f"orchestrator cancel {name}"))
    out.print(tables.useful_commands(commands))


def _stage_row(one: Run, stage: StageRun, now: float) -> Iterator[str]:
    attempts = stage.attempts
    began = attempts[0].started if attempts else None
    ended = attempts[-1].ended if attempts else None
    yield from (stage.name, stage.planned.stage.role, stage.pool, str(stage.planned.devices))
    yield from (str(len(attempts)), str(stage.failovers))
    yield tables.duration(None if began is None else (ended or now) - began)
    yield tables.dollars(stage_cost(one, stage.name, now)) if attempts else "-"
    yield "reused" if stage.reused_from else _word(stage)
    yield stage.reused_from or stage.waits_for or stage.reason


def _word(stage: StageRun) -> str:
    waits = stage.state is StageState.RUNNING and stage.attempts[-1].placed is None
    return "waiting" if waits or stage.waits_for else stage.state


def _run_json(one: Run, there: Presence | None, now: float) -> dict[str, object]:
    return {
        "run": one.header.run,
        "pipeline": one.plan.pipeline,
        "fleet": one.plan.fleet,
        "state": one.state,
        "controller": there,
        "reason": one.reason,
        "emulated": one.plan.emulated,
        "created": one.header.created,
        "started": one.started,
        "ended": one.ended,
        "failovers": one.failovers,
        "cost": one.spent(now),
        "endpoints": runs.served(one),
        "stages": [_stage_json(one, stage, now) for stage in one.stages.values()],
    }


def _stage_json(one: Run, stage: StageRun, now: float) -> dict[str, object]:
    return {
        "stage": stage.name,
        "role": stage.planned.stage.role,
        "pool": stage.pool,
        "devices": stage.planned.devices,
        "attempts": len(stage.attempts),
        "failovers": stage.failovers,
        "state": stage.state,
        "reason": stage.reason,
        "waits_for": stage.waits_for,
        "checkpoints": list(stage.checkpoints),
        "lost_steps": stage.lost_steps,
        "reused_from": stage.reused_from,
        "device_hours": stage.device_hours(now),
        "cost": stage_cost(one, stage.name, now),
        "metrics": dict(stage.metrics),
        "artifact": stage.artifact.uri if stage.artifact else None,
    }
