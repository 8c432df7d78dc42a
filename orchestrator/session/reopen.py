"""A run that has ended goes on: what is decided, and committed, before a controller has it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from orchestrator import wiring
from orchestrator.adapters import hydra_config
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.runs import reopening as rules
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import RunReopened
from orchestrator.core.runs.transitions import RUN_TRANSITIONS
from orchestrator.ports import EventLog, Interventions

LIMITS = re.compile(r"(cost|time|attempt)_limit|pipeline\.stages\.[^.]+\.limits\.\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """How a run shall go on.

    `since` is the first stage that begins again, `anew` without its checkpoints; `attempts` are
    how many each stage has from now on, `limits` overrides of limits as in a config.
    """

    since: str | None = None
    anew: bool = False
    attempts: int | None = None
    limits: tuple[str, ...] = ()


class ReopenedRuns(EventLog, Interventions, Protocol):
    """The events of runs, and whether they are to be cancelled."""


def reopening(store: EventLog, run: Run, how: Again) -> RunReopened:
    """Return the event by which `run` goes on; nothing is committed.

    Raises:
        ConfigError: What is to be changed is no limit, or no value of one.
        PlanError: Limits are used up already.
        NotFoundError: There is no such stage.
    """
    if (run.state, RunReopened) not in RUN_TRANSITIONS:
        hint = f"orchestrator resume {run.header.run} ends it first"
        raise ConfigError([Problem("", f"run {run.header.run!r} is {run.state}", hint)])
    event = rules.reopening(run, since=how.since, anew=how.anew)
    attempts = [] if how.attempts is None else _attempts(event.stages, how.attempts)
    words = (*_earlier(store, run.header.run), *how.limits, *attempts)
    _refuse_all_but_limits(how.limits)
    if words:
        limited = wiring.plan(hydra_config.parse(hydra_config.changed(run.header.config, words)))
        event = rules.reopening(run, since=how.since, anew=how.anew, limited=limited)
        event = replace(event, overrides=(*how.limits, *attempts))
    rules.check_limits(run, event, wiring.clock().now())
    return event


def reopen(store: ReopenedRuns, run: Run, event: RunReopened) -> None:
    """Commit that `run` goes on by `event`.

    Raises:
        StaleControllerError: Something has happened to the run since it was read.
    """
    store.append(run.header.run, run.seq + 1, (event,), wiring.clock().now())
    store.withdraw_cancel(run.header.run)


def _attempts(stages: Sequence[str], attempts: int) -> list[str]:
    return [f"pipeline.stages.{name}.limits.attempts={attempts}" for name in stages]


def _earlier(store: EventLog, run: str) -> list[str]:
    """Return the overrides by which the run went on before: they hold still."""
    events = (stored.event for stored in store.events(run))
    return [word for event in events if isinstance(event, RunReopened) for word in event.overrides]


def _refuse_all_but_limits(overrides: Sequence[str]) -> None:
    paths = [word.lstrip("+").partition("=")[0] for word in overrides]
    problems = [
        Problem(path, "a run that goes on takes other limits, and nothing else", _HINT)
        for path in paths
        if not LIMITS.fullmatch(path)
    ]
    if problems:
        raise ConfigError(problems)


_HINT = "`orchestrator launch --continue RUN` takes the rest too, and goes on from its checkpoints"
