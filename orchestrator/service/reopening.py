"""A run goes on: one that did not succeed, was lost, or is to run a stage of it again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from orchestrator import wiring
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import ArtifactError, ConfigError, PlanError, Problem
from orchestrator.core.runs import reopening as rules
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.core.runs.states import RunReopened, RunState, StageState
from orchestrator.core.runs.transitions import RUN_TRANSITIONS
from orchestrator.ports import EventLog
from orchestrator.service import driving, runs
from orchestrator.service.launching import detach
from orchestrator.service.planning import check_detachable

OTHER_CODE = "run the code that is here now: it has changed since"
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


@dataclass(frozen=True, slots=True)
class Resumption:
    """How a run goes on: opened again by `event` where it has ended, then driven.

    With `other_code` its jobs run what is here now, which differs from what they have run so far.
    """

    run: Run
    request: driving.DriveRequest
    event: RunReopened | None = None
    other_code: bool = False

    def reopened(self) -> Iterator[str]:
        """Yield what the event changes; nothing where there is none."""
        if self.other_code:
            yield OTHER_CODE
        if self.event is None:
            return
        if not self.event.stages:
            yield "change limits, begin no stage again"
        for name in self.event.stages:
            without = ", without its checkpoints" if name in self.event.anew else ""
            yield f"begin stage {name} again{without}"
        for word in self.event.overrides:
            yield f"set {word}"

    def driven(self, *, detached: bool = False) -> str:
        """Return who drives the run on, in lines.

        Raises:
            ConfigError: It is to be `detached`, and can't be.
        """
        if detached:
            check_detachable(self.request.settings)
        how = "hand over to a Ray job" if detached else "drive on"
        taken = f"\ntaking it from {self._controller()}" if self.request.by_force else ""
        return f"{how} run {self.run.header.run}{taken}"

    def _controller(self) -> str:
        alive = runs.lease_state(wiring.database(wiring.home()), self.run) is LeaseState.ALIVE
        holder = "its controller, which lives and stops then"
        return holder if alive else "nobody: no controller lives"

    def reopen(self) -> None:
        """Commit that the run goes on, for `drive`; `detach` does that itself.

        Raises:
            StaleControllerError: Something has happened to the run since it was read.
        """
        event = self.event
        if self.other_code:
            name = self.run.header.run
            code = wiring.ship(self.request.settings, self.request.home, name)
            event = replace(event or RunReopened(reason=OTHER_CODE, stages=()), code=code)
        if event is not None:
            name, store = self.run.header.run, wiring.database(wiring.home())
            store.append(name, self.run.seq + 1, (event,), store.now())
            store.withdraw_cancel(name)

    def drive(self, view: driving.View) -> Run:
        """Drive the run here to its end, and return it."""
        return driving.drive(self.request, view, new=False, keep=driving.serves)

    def detach(self) -> RunHeader:
        """Hand the run over to a Ray job, and return its header once that has it.

        It is opened again once the cluster takes jobs: until then it stays as it ended.

        Raises:
            ClusterError: The cluster takes none, or the job has ended, or does not have the run.
        """
        pools = driving.startable(self.request.settings, self.request.header.plan)
        with driving.handing_over(self.request.settings, self.request.home, pools):
            self.reopen()
            return detach(self.request)


def resume(
    run: Run, how: Again, *, take_over: bool = False, reuse: bool = True
) -> Resumption | None:
    """Have a run go on; finished stages stay, others go on from their checkpoints.

    Return `None` for a run that has succeeded and is to begin no stage again. `take_over` asks
    not whether its controller lives; without `reuse` results of other runs are not taken.

    Raises:
        HeldError: It has a controller that lives.
        ConfigError: What is to be changed is no limit, or no value of one.
        PlanError: Limits are used up already.
        NotFoundError: There is no such stage.
    """
    store = wiring.database(wiring.home())
    if run.state is RunState.SUCCEEDED and how.since is None:
        return None
    if not run.done:
        run = driving.claim(store, run.header, by_force=take_over)
    event = None
    if run.done or how != Again():
        event = _reopening(store, run, how)
    elif rules.halted(run):
        with suppress(PlanError):  # where a limit holds them, the other stages go on
            event = _reopening(store, run, how)
    return _resumption(run, event, take_over=take_over, reuse=reuse)


def rerun(run: Run, stage: str, *, reuse: bool = True) -> Resumption:
    """Have a run that has ended go on from one of its stages, without what that had saved.

    Raises:
        ConfigError: It has not ended.
        PlanError: Limits are used up already.
        NotFoundError: There is no such stage.
    """
    name, store = run.header.run, wiring.database(wiring.home())
    if not run.done:
        hint = "wait for its end, or resume it"
        raise ConfigError([Problem("", f"run {name!r} has not ended: {run.state}", hint)])
    event = _reopening(store, run, Again(since=stage, anew=True))
    return _resumption(run, event, take_over=False, reuse=reuse)


def _resumption(
    run: Run, event: RunReopened | None, *, take_over: bool, reuse: bool
) -> Resumption:
    settings, home = wiring.configs.parse(run.header.config), wiring.home()
    request = driving.DriveRequest(
        settings=settings,
        header=wiring.database(home).header(run.header.run),
        home=home,
        reuse=reuse,
        by_force=take_over,
    )
    able = (run.state, RunReopened) in RUN_TRANSITIONS
    other = able and wiring.changed(settings, home, run.header.code)
    return Resumption(run, request, event, other)


def _reopening(store: EventLog, run: Run, how: Again) -> RunReopened:
    """Return the event by which `run` goes on."""
    if (run.state, RunReopened) not in RUN_TRANSITIONS:
        hint = "resume it first"
        raise ConfigError([Problem("", f"run {run.header.run!r} is {run.state}", hint)])
    since, anew, damaged = how.since, how.anew, tuple(_damaged(run))
    event = rules.reopening(run, since=since, anew=anew, damaged=damaged)
    attempts = [] if how.attempts is None else _attempts(event.stages, how.attempts)
    words = (*_earlier(store, run.header.run), *how.limits, *attempts)
    _refuse_all_but_limits(how.limits)
    if words:
        changed = wiring.configs.parse(wiring.configs.changed(run.header.config, words))
        limited = wiring.plan(wiring.with_code(changed, wiring.home(), run.header.code)[0])
        event = rules.reopening(run, since=since, anew=anew, limited=limited, damaged=damaged)
        event = replace(event, overrides=(*how.limits, *attempts))
    rules.check_limits(run, event, store.now())
    return event


def _damaged(run: Run) -> Iterator[str]:
    """Yield the stages whose results are read by those that failed, and were found damaged."""
    ends = {StageState.FAILED, StageState.PAUSED}
    failed = [stage.planned.stage for stage in run.stages.values() if stage.state in ends]
    read = {name for stage in failed for name in stage.inputs.values()}
    results = {name: artifact for name in read if (artifact := run.stages[name].artifact)}
    if not results:
        return
    settings = wiring.configs.parse(run.header.config)
    uri = wiring.storage_uri(settings, wiring.home())
    store = wiring.artifact_store(uri, wiring.clock(), settings.attempts.storage)
    for name, artifact in results.items():
        with suppress(ArtifactError):  # nothing is known of it here
            if store.damage(artifact) is not None:
                yield name


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


_HINT = "a launch that continues it takes the rest too, and goes on from its checkpoints"
