"""A run told in words: one plain sentence first, then a table in markdown.

MLflow clips a description to three lines and shows raw markdown in its table of runs: hence the
sentence. Every pool that is emulated is called so.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import shorten

from orchestrator.adapters.mlflow_tracker.tracked_run import TrackedRun
from orchestrator.core.failures.kinds import UNCOUNTED, Failure
from orchestrator.core.runs.run import Attempt, Run, StageRun
from orchestrator.core.runs.states import RunState
from orchestrator.core.spec.hardware import Pool, Role
from orchestrator.core.spec.plan import Plan

_VERBS = {Role.PREPARE: "prepared", Role.TRAIN: "trained", Role.SERVE: "served"}
_EVIDENCE = 160
_MINUTE, _HOUR = 60, 3600


def description(tracked: TrackedRun, now: float) -> str:
    """Return the description of a run at `now` (seconds, epoch)."""
    return f"{sentence(tracked, now)}\n\n{table(tracked.run, now)}\n"


def sentence(tracked: TrackedRun, now: float) -> str:
    """Return what happened, in one or two plain sentences."""
    run = tracked.run
    failed = tracked.failure
    after = f"after {duration(run.seconds(run.ended or now))}"
    used = _capital(_used(run))
    if run.state in {RunState.FAILED, RunState.PAUSED, RunState.CANCELLED}:
        return _stopped(tracked, failed, after)
    if run.state is RunState.SUCCEEDED:
        if failed:
            return (
                f"{_failed(tracked, failed)}{_recovered(tracked, failed)}. "
                f"{used}; finished {after}."
            )
        return f"{used or 'Reused every result'}; finished in {after.removeprefix('after ')}."
    now_running = "; ".join(_active(run)) or "Waiting to start"
    if failed:
        return f"{_failed(tracked, failed)}{_recovered(tracked, failed)}. {now_running}."
    return f"{now_running}."


def _stopped(tracked: TrackedRun, failed: Attempt | None, after: str) -> str:
    run = tracked.run
    if run.state is RunState.CANCELLED:
        return f"Cancelled {after}{_where(run)}."
    if run.state is RunState.FAILED:
        return f"{_failed(tracked, failed)}; gave up {after}."
    why = _failed(tracked, failed) if failed else _capital(run.reason)
    return f"{why}; paused {after}: `orchestrator resume {run.header.run}` goes on."


def table(run: Run, now: float) -> str:
    """Return the stages as a markdown table, of which what runs changes once a minute at most."""
    minute = now - (now - run.header.created) % _MINUTE
    lines = [
        "| stage | role | pool | state | attempts | took |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for stage in run.stages.values():
        pools = " → ".join(dict.fromkeys(a.pool for a in stage.attempts)) or stage.pool
        state = f"reused from {stage.reused_from}" if stage.reused_from else str(stage.state)
        cells = (
            stage.name,
            str(stage.planned.stage.role),
            pools,
            state,
            str(len(stage.attempts)),
            _took(stage, minute),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _took(stage: StageRun, minute: float) -> str:
    """Return how long the attempts of a stage took, or have taken up to a whole `minute`."""
    seconds = sum(max((a.ended or minute) - a.started, 0.0) for a in stage.attempts)
    if stage.attempts and stage.attempts[-1].active and seconds < 2 * _HOUR:
        return f"{round(seconds) // _MINUTE} min so far"
    return duration(seconds)


def plan_table(plan: Plan) -> str:
    """Return a plan as markdown."""
    lines = [
        f"# Plan of `{plan.pipeline}` on fleet `{plan.fleet}`",
        "",
        "| stage | role | pool | devices | format | expected cost | fallbacks |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for planned in plan.stages:
        cells = (
            planned.stage.name,
            str(planned.stage.role),
            pool_name(plan.pools[planned.pools[0]]),
            str(planned.devices),
            planned.formats[0] if planned.formats else "",
            "unknown" if planned.cost is None else f"${planned.cost:,.2f}",
            ", ".join(pool_name(plan.pools[name]) for name in planned.pools[1:]),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def pool_name(pool: Pool) -> str:
    """Return a pool and its chip, and whether the chip is emulated."""
    kind = "emulated " if pool.emulated else ""
    return f"{pool.name} ({kind}{pool.accelerator.name})"


def duration(seconds: float) -> str:
    """Return a time in words, to the second."""
    whole = max(round(seconds), 0)
    if whole < 2 * _MINUTE:
        return f"{whole} s"
    if whole < 2 * _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"


def _used(run: Run) -> str:
    """Return which pool did what, of the stages that ran: training and serving if there were."""
    used: dict[Role, dict[str, None]] = {}
    for stage in run.stages.values():
        for attempt in stage.attempts[-1:]:
            used.setdefault(stage.planned.stage.role, {})[attempt.pool] = None
    shown: list[Role] = [role for role in used if role is not Role.PREPARE] or list(used)
    return ", ".join(
        f"{_VERBS[role]} on {' and '.join(pool_name(run.plan.pools[p]) for p in used[role])}"
        for role in shown
    )


def _failed(tracked: TrackedRun, attempt: Attempt | None) -> str:
    run = tracked.run
    if attempt is None or attempt.failure is None:
        return f"Failed: {run.reason}" if run.reason else "Failed"
    recovered = run.state is not RunState.FAILED  # the sentence goes on, and names the chips
    pool = attempt.pool if recovered else pool_name(run.plan.pools[attempt.pool])
    times = "" if tracked.failures == 1 else f" {tracked.failures} times, last"
    step = f"step {attempt.failure.step}"
    known = attempt.failure.step is None or step in attempt.failure.evidence
    at = "" if known else f" at {step}"
    word = "Interrupted" if attempt.failure.kind in UNCOUNTED else "Failed"
    return f"{word}{times} in {attempt.stage} on {pool}{at}: {_why(attempt.failure)}"


def _why(failure: Failure) -> str:
    lines = failure.evidence.strip().splitlines() or [""]
    evidence = shorten(lines[0].rstrip(" .;"), _EVIDENCE, placeholder=" ...")
    kind = str(failure.kind).replace("_", " ")
    return f"{kind}, {evidence}" if evidence else kind


def _recovered(tracked: TrackedRun, failed: Attempt) -> str:
    stage = tracked.run.stages[failed.stage]
    after = tracked.next_to(failed)
    pool = after.pool if after else stage.pool
    moved = f"; fell back to {pool}" if pool != failed.pool else ""
    text = moved or (f"; tried again on {pool}" if after else "")
    if after is None or after.resumed is None:
        return text
    lost = tracked.run.lost_steps
    steps = f"{lost} step{'s' * (lost != 1)} lost{' in all' * (tracked.failures > 1)}"
    return f"{text}, resumed from step {after.resumed} ({steps})"


def _where(run: Run) -> str:
    cancelled = [s for s in run.stages.values() if s.attempts and not s.artifact and s.done]
    last = cancelled[-1] if cancelled else None
    return f" in {last.name} on {pool_name(run.plan.pools[last.pool])}" if last else ""


def _active(run: Run) -> Iterator[str]:
    for attempt in run.active:
        stage = run.stages[attempt.stage]
        place = pool_name(run.plan.pools[attempt.pool])
        verb = "Waiting for" if attempt.placed is None else "Running"
        preposition = "to start on" if attempt.placed is None else "on"
        yield f"{verb} {stage.name} {preposition} {place}, attempt {attempt.number}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
