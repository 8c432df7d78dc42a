"""How a run goes on after its end: which stages begin again, and under which limits."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from orchestrator.core.errors import NotFoundError, PlanError, Problem
from orchestrator.core.nearest import choices
from orchestrator.core.runs.fold import apply
from orchestrator.core.runs.limits import exhausted, over_budget
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunReopened, RunState, StageState
from orchestrator.core.spec.plan import Plan

# A run that has not ended, but has no controller: its limits can be changed, and no more.
OPEN = frozenset({StageState.PENDING, StageState.RUNNING, StageState.DECIDING})


def reopening(
    run: Run,
    *,
    since: str | None = None,
    anew: bool = False,
    limited: Plan | None = None,
    damaged: Collection[str] = (),
) -> RunReopened:
    """Return the event by which `run` goes on: every stage begins again that did not succeed.

    With `since` that stage does too, and whatever comes after it; `anew` without its checkpoints.
    `limited` is the plan of the run with the limits that hold from now on. The results of the
    stages `damaged` can't be read any more: they begin again as well, and what comes after them.

    Raises:
        NotFoundError: The run has no stage `since`.
    """
    first = {*damaged} if since is None else {*damaged, since}
    again = frozenset(name for stage in first for name in _from(run, stage))
    stages = tuple(
        name
        for name, stage in run.stages.items()
        if stage.state not in OPEN and (stage.state is not StageState.SUCCEEDED or name in again)
    )
    old = {name for name in again if name not in first or (anew and name == since)}
    limits = (
        {planned.stage.name: planned.stage.limits for planned in limited.stages} if limited else {}
    )
    changed = {
        name: now
        for name, now in limits.items()
        if name in run.stages and now != run.stages[name].planned.stage.limits
    }
    what = "every stage that did not succeed" if since is None else f"stage {since!r} and on"
    lost = "".join(f"; what {name!r} had made is damaged" for name in damaged)
    return RunReopened(
        reason=f"{what} begins again{lost}",
        stages=stages,
        anew=tuple(name for name in stages if name in old),
        limits=changed,
        bounds=limited.bounds if limited and limited.bounds != run.plan.bounds else None,
    )


def halted(run: Run) -> bool:
    """Return whether a run that has not ended has stages that wait for somebody to go on."""
    return (
        any(
            stage.state not in OPEN and stage.state is not StageState.SUCCEEDED
            for stage in run.stages.values()
        )
        and run.state is RunState.RUNNING
    )


def check_limits(run: Run, event: RunReopened, now: float) -> None:
    """Refuse to reopen `run` at `now` (seconds, epoch) where it would pause again at once.

    Raises:
        PlanError: Limits are used up already; a problem for each, with the limit to raise.
    """
    after = apply(run, event, now)
    broke = over_budget(after, now)
    problems = list(dict.fromkeys(_used_up(after, event, now, broke=broke)))
    if problems:
        raise PlanError(problems)


def _used_up(run: Run, event: RunReopened, now: float, *, broke: bool) -> Iterator[Problem]:
    for name in event.stages:
        spent = exhausted(run, run.stages[name], now, broke=broke)
        if spent:
            own = spent.evidence.startswith("stage ")
            key = {"time": "timeout", "budget": "cost"}[str(spent.kind)]
            path = f"pipeline.stages.{name}.limits.{key}" if own else f"{_OF_RUN[key]}"
            again = f"orchestrator resume {run.header.run} {path}=..."
            yield Problem(path, spent.evidence, f"raise it: {again}")


_OF_RUN = {"timeout": "time_limit", "cost": "cost_limit"}


def _from(run: Run, since: str) -> Iterator[str]:
    """Yield stage `since` and all that depend on it."""
    if since not in run.stages:
        hint = choices(since, run.stages, "stages")
        raise NotFoundError(f"run {run.header.run!r} has no stage {since!r}; {hint}")
    names = {since}
    for planned in run.plan.stages:  # in the order in which they depend
        if not names.isdisjoint(planned.stage.upstream):
            names.add(planned.stage.name)
    yield from names
