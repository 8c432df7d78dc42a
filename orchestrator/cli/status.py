"""`orchestrator status`: the runs, or the stages of one."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import shorten

from orchestrator.cli import tables
from orchestrator.cli.exits import Exit, of_state
from orchestrator.core.failures.kinds import WHERE
from orchestrator.core.runs.run import Attempt, Run, StageRun, stage_cost
from orchestrator.core.runs.states import RunState, StageState
from orchestrator.service import environment, runs
from orchestrator.service.status import RunStatus, newest, status

LOST = "lost"
WITH_A_WAY_BACK = frozenset({RunState.PAUSED, RunState.FAILED, RunState.CANCELLED})

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


ATTEMPT_COLUMNS = ("ATTEMPT", "POOL", "NODE", "KIND", "STEP", "DURATION", "EVIDENCE", "FOLLOWED")
LONGEST_EVIDENCE = 160


def run(args: argparse.Namespace) -> Exit:
    """List the newest runs, or the stages of one; its exit code tells that run's state."""
    if args.run is None:
        _list(newest(args.limit), as_json=args.json)
        return Exit.SUCCEEDED
    one = status(args.run)
    if args.json:
        print(tables.as_json(_run_json(one)))
    else:
        _show(one)
    return of_state(one.run.state)


def _list(found: Sequence[RunStatus], *, as_json: bool) -> None:
    if as_json:
        print(tables.as_json([_run_json(one) for one in found]))
        return
    out = tables.console()
    if not found:
        out.print("No runs yet. Launch one: orchestrator launch pipeline=r2")
        return
    out.print(tables.table(RUN_COLUMNS, map(_run_row, found)))
    first = found[0].run.header.run
    lost = [one.run.header.run for one in found if one.lost]
    commands = [
        ("To see the stages of one:", f"orchestrator status {first}"),
        ("To read its logs:", f"orchestrator logs {first}"),
        ("To review in MLflow:", "orchestrator ui"),
    ]
    commands += [("To go on with a lost one:", f"orchestrator resume {name}") for name in lost[:1]]
    out.print(tables.useful_commands(commands))


def _run_row(seen: RunStatus) -> tuple[str, ...]:
    one = seen.run
    submitted = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.header.created))
    took = None if one.started is None else one.seconds(seen.at)
    return (
        one.header.run,
        one.plan.pipeline,
        " ".join(runs.tried(one)) or "-",
        submitted,
        tables.duration(took),
        str(one.failovers),
        LOST if seen.lost else one.state,
    )


def _show(seen: RunStatus) -> None:
    out, one = tables.console(), seen.run
    marked = " [yellow](emulated pools)[/]" if one.plan.emulated else ""
    out.print(f"Run [bold]{one.header.run}[/] {one.state}{marked}")
    if one.reason:
        out.print(one.reason, markup=False)
    if seen.lost:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seen.at))
        ago = tables.duration(environment.clock().now() - seen.at)
        gone = "its controller is gone since" if one.epoch else "nobody has begun it since"
        out.print(f"[red]{LOST}[/]: {gone} {since} ({ago} ago)")
    for told in seen.untold:
        out.print(f"note: {told}", style="yellow", markup=False)
    out.print()
    rows = (tuple(_stage_row(seen, stage)) for stage in one.stages.values())
    out.print(tables.table(STAGE_COLUMNS, rows))
    attempts = [a for stage in one.stages.values() for a in stage.attempts]
    if any(attempt.failure for attempt in attempts):
        out.print()
        out.print(
            tables.table(ATTEMPT_COLUMNS, (tuple(_attempt_row(a, seen.at)) for a in attempts))
        )
    name = one.header.run
    commands = [("To read the logs:", f"orchestrator logs {name}")]
    commands += [("To ask the model:", f'orchestrator ask -e {e} "..."') for e in runs.served(one)]
    if seen.lost or one.state in WITH_A_WAY_BACK:
        commands.append(("To go on with it:", f"orchestrator resume {name}"))
    if not one.done:
        commands.append(("To end it:", f"orchestrator cancel {name}"))
    out.print(tables.useful_commands(commands))


def _occupation(seen: RunStatus, stage: StageRun) -> str:
    found = seen.occupation(stage.attempts[-1] if stage.attempts else None)
    return f"{found.what} ({tables.duration(max(0.0, seen.at - found.since))})" if found else ""


def _stage_row(seen: RunStatus, stage: StageRun) -> Iterator[str]:
    one, now = seen.run, seen.at
    attempts = stage.attempts
    yield from (stage.name, stage.planned.stage.role, stage.pool, str(stage.planned.devices))
    yield from (str(len(attempts)), str(stage.failovers))
    yield tables.duration(stage.seconds(now) if attempts else None)
    yield tables.dollars(stage_cost(one, stage.name, now)) if attempts else "-"
    yield "reused" if stage.reused_from else _word(stage)
    yield stage.reused_from or stage.waits_for or _occupation(seen, stage) or stage.reason


def _attempt_row(attempt: Attempt, now: float) -> Iterator[str]:
    failure = attempt.failure
    yield f"{attempt.stage} {attempt.number}"
    yield attempt.pool
    node = failure.node if failure and failure.node else ""
    yield node or ", ".join(dict.fromkeys(attempt.nodes)) or "-"
    sure = "" if failure is None or failure.certain or _given_up(attempt) else "?"
    yield f"{failure.kind}{sure}" if failure else str(attempt.state)
    step = failure.step if failure else None
    yield "-" if step is None else str(step)
    yield tables.duration((now if attempt.ended is None else attempt.ended) - attempt.started)
    yield shorten(failure.evidence, LONGEST_EVIDENCE, placeholder=" ...") if failure else ""
    yield attempt.followed


def _given_up(attempt: Attempt) -> bool:
    """Whether its failure was found certain in the end: so certain that the stage was given up."""
    return attempt.followed.startswith("give up: ")


def _word(stage: StageRun) -> str:
    waits = stage.state is StageState.RUNNING and stage.attempts[-1].placed is None
    return "waiting" if waits or stage.waits_for else stage.state


def _run_json(seen: RunStatus) -> dict[str, object]:
    one, now = seen.run, seen.at
    return {
        "run": one.header.run,
        "pipeline": one.plan.pipeline,
        "fleet": one.plan.fleet,
        "state": one.state,
        "controller": seen.controller,
        "reason": one.reason,
        "emulated": one.plan.emulated,
        "created": one.header.created,
        "started": one.started,
        "ended": one.ended,
        "failovers": one.failovers,
        "cost": one.spent(now),
        "endpoints": runs.served(one),
        "stages": [_stage_json(one, stage, now) for stage in one.stages.values()],
        "untold": [asdict(one) for one in seen.untold],
        "attempts": [_attempt_json(seen, a) for s in one.stages.values() for a in s.attempts],
    }


def _attempt_json(seen: RunStatus, attempt: Attempt) -> dict[str, object]:
    failure, busy = attempt.failure, seen.occupation(attempt)
    told = {} if failure is None else {**asdict(failure), "where": WHERE[failure.kind]}
    return {
        "stage": attempt.stage,
        "number": attempt.number,
        "pool": attempt.pool,
        "nodes": list(attempt.nodes),
        "state": attempt.state,
        "started": attempt.started,
        "placed": attempt.placed,
        "ended": attempt.ended,
        "resumed": attempt.resumed,
        "saved": list(attempt.saved),
        "failure": told or None,
        "followed": attempt.followed,
        "busy": {"with": busy.what, "since_seconds": seen.at - busy.since} if busy else None,
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
