"""Runs, their stages and their attempts as tables, and as plain values."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from textwrap import shorten

from rich.table import Table

from orchestrator.core.failures.kinds import WHERE
from orchestrator.core.runs.run import Attempt, Run, StageRun, stage_cost
from orchestrator.core.runs.states import StageState
from orchestrator.display import tables
from orchestrator.service import runs
from orchestrator.service.status import RunStatus

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
    "PROGRESS",
    "STATUS",
    "REASON",
)


ATTEMPT_COLUMNS = ("ATTEMPT", "POOL", "NODE", "KIND", "STEP", "DURATION", "EVIDENCE", "FOLLOWED")
LONGEST_EVIDENCE = 160


def of_runs(listed: Sequence[RunStatus]) -> Table:
    """Return the table of runs."""
    return tables.table(RUN_COLUMNS, map(_run_row, listed))


def of_stages(status: RunStatus) -> Table:
    """Return the table of the stages of a run."""
    rows = (tuple(_stage_row(status, stage)) for stage in status.run.stages.values())
    return tables.table(STAGE_COLUMNS, rows)


def of_attempts(status: RunStatus) -> Table:
    """Return the table of all attempts of a run."""
    attempts = (attempt for stage in status.run.stages.values() for attempt in stage.attempts)
    return tables.table(ATTEMPT_COLUMNS, (tuple(_attempt_row(a, status.at)) for a in attempts))


def _run_row(status: RunStatus) -> tuple[str, ...]:
    run = status.run
    submitted = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.header.created))
    took = None if run.started is None else run.seconds(status.at)
    return (
        run.header.run,
        run.plan.pipeline,
        " ".join(runs.tried(run)) or "-",
        submitted,
        tables.duration(took),
        str(run.failovers),
        LOST if status.lost else run.state,
    )


def _occupation(status: RunStatus, stage: StageRun) -> str:
    busy = status.occupation(stage.attempts[-1] if stage.attempts else None)
    return f"{busy.what} ({tables.duration(max(0.0, status.at - busy.since))})" if busy else ""


def _stage_row(status: RunStatus, stage: StageRun) -> Iterator[str]:
    run, now = status.run, status.at
    attempts = stage.attempts
    yield from (stage.name, stage.planned.stage.role, stage.pool, str(stage.planned.devices))
    yield from (str(len(attempts)), str(stage.failovers))
    yield tables.duration(stage.seconds(now) if attempts else None)
    yield tables.dollars(stage_cost(run, stage.name, now)) if attempts else "-"
    progress = status.progress.get((stage.name, attempts[-1].number)) if attempts else None
    yield f"{progress.done}/{progress.total}" if progress else "-"
    yield "reused" if stage.reused_from else _word(stage)
    yield stage.reused_from or stage.waits_for or _occupation(status, stage) or stage.reason


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


def as_json(status: RunStatus) -> dict[str, object]:
    """Return how a run stands as plain values."""
    run, now = status.run, status.at
    return {
        "run": run.header.run,
        "pipeline": run.plan.pipeline,
        "fleet": run.plan.fleet,
        "state": run.state,
        "controller": status.controller,
        "driver": status.driver,
        "reason": run.reason,
        "emulated": run.plan.emulated,
        "created": run.header.created,
        "started": run.started,
        "ended": run.ended,
        "failovers": run.failovers,
        "cost": run.spent(now),
        "endpoints": runs.served(run),
        "stages": [_stage_json(run, stage, now) for stage in run.stages.values()],
        "untold": [asdict(untold) for untold in status.untold],
        "attempts": [_attempt_json(status, a) for s in run.stages.values() for a in s.attempts],
    }


def _attempt_json(status: RunStatus, attempt: Attempt) -> dict[str, object]:
    failure, busy = attempt.failure, status.occupation(attempt)
    progress = status.progress.get((attempt.stage, attempt.number))
    failure_fields = {} if failure is None else {**asdict(failure), "where": WHERE[failure.kind]}
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
        "failure": failure_fields or None,
        "followed": attempt.followed,
        "progress": asdict(progress) if progress else None,
        "busy": {"with": busy.what, "since_seconds": status.at - busy.since} if busy else None,
    }


def _stage_json(run: Run, stage: StageRun, now: float) -> dict[str, object]:
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
        "cost": stage_cost(run, stage.name, now),
        "metrics": dict(stage.metrics),
        "artifact": stage.artifact.uri if stage.artifact else None,
    }
