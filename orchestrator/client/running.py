"""A run, as Python sees and moves it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Self

from rich.console import Group, RenderableType

from orchestrator.client.shown import Shown
from orchestrator.core.runs.run import StageRun
from orchestrator.core.runs.states import RunState
from orchestrator.display import runs as display
from orchestrator.service import driving, environment, reopening, runs
from orchestrator.service.cancelling import cancel
from orchestrator.service.launching import PlannedLaunch
from orchestrator.service.logs import Wanted, logs
from orchestrator.service.planning import detachable
from orchestrator.service.profiling import profile
from orchestrator.service.status import RunStatus, status

SECONDS_BETWEEN_LOOKS = 0.5


class LiveRun(Shown):
    """A run of this home. Each look asks the database how it stands then."""

    def __init__(self, name: str) -> None:
        """Follow the run of that id."""
        self.name = name

    @classmethod
    def started(cls, planned: PlannedLaunch) -> Self:
        """Return the run of a launch: as a job of the cluster, or driven here to its end."""
        if detachable(planned.runs[0].settings):
            return cls(next(iter(planned.detach())).run)
        return cls(planned.drive(driving.Unseen())[0].header.run)

    @property
    def status(self) -> RunStatus:
        """How it stands: its value, its controller, what its attempts wait in."""
        return status(self.name)

    @property
    def state(self) -> RunState:
        """Its state."""
        return self.status.run.state

    @property
    def reason(self) -> str:
        """Why it ended or paused; empty where there is nothing to say."""
        return self.status.run.reason

    @property
    def stages(self) -> Mapping[str, StageRun]:
        """Its stages by their names: state, pool, attempts with their failures, metrics."""
        return self.status.run.stages

    @property
    def cost(self) -> float | None:
        """What it has cost so far, in US dollars; `None` where a price is unknown."""
        snapshot = self.status
        return snapshot.run.spent(snapshot.at)

    def wait(self, timeout: float | None = None) -> Self:
        """Wait until it has ended or paused, or its controller is gone; return it.

        Raises:
            TimeoutError: It goes on after `timeout` seconds.
        """
        clock = environment.clock()
        until = None if timeout is None else clock.monotonic() + timeout
        while (snapshot := self.status) and not (snapshot.run.done or snapshot.lost):
            if until is not None and clock.monotonic() > until:
                raise TimeoutError(
                    f"run {self.name!r} is {snapshot.run.state} after {timeout:g} s"
                )
            clock.sleep(SECONDS_BETWEEN_LOOKS)
        return self

    def logs(
        self,
        stage: str | None = None,
        *,
        follow: bool = False,
        rank: int | None = None,
        attempt: int | None = None,
        tail: int | None = None,
        since: float | None = None,
    ) -> Iterator[str]:
        """Yield what its stages wrote, wherever it is driven; with `follow` until it ends.

        Of one `stage`, `rank` or number of `attempt` alone; the last lines alone with `tail`,
        those of the last seconds with `since`.

        Raises:
            NotFoundError: There is no such stage.
        """
        selection = Wanted(stage=stage, rank=rank, attempt=attempt, tail=tail, since=since)
        return logs(self.name, selection).lines(follow=follow)

    def profile(self, stage: str, *, rank: int = 0) -> str:
        """Return the stacks of all threads of a worker of a stage that runs.

        Raises:
            NotFoundError: There is no such stage or rank.
            ClusterError: The stage does not run, or the worker can't be looked at.
        """
        return profile(self.name, stage, rank=rank).decode(errors="replace")

    def cancel(self) -> Self:
        """End it, and return it."""
        run = runs.find(self.name)
        if not run.done:
            cancel(run, driving.Unseen()).make()
        return self

    def resume(self, *limits: str, since: str | None = None, attempts: int | None = None) -> Self:
        """Have it go on: finished stages stay, others go on from their checkpoints; return it.

        `limits` are overrides of limits (`cost_limit=900`), `since` is the first stage that begins
        again, `attempts` are how many each stage has from now on.

        Raises:
            HeldError: It has a controller that lives.
            ConfigError: What is to be changed is no limit.
            PlanError: Limits are used up already.
        """
        how = reopening.Again(since=since, attempts=attempts, limits=limits)
        return self._go_on(reopening.resume(runs.find(self.name), how))

    def rerun(self, stage: str) -> Self:
        """Run a stage again from its beginning, then those after it; return the run.

        Raises:
            ConfigError: It has not ended.
            NotFoundError: It has no such stage.
        """
        return self._go_on(reopening.rerun(runs.find(self.name), stage))

    def approve(self, stage: str) -> Self:
        """Open the gate of a stage, and return the run.

        Raises:
            NotFoundError: No such stage waits for an approval.
        """
        runs.approve(runs.find(self.name), stage).make()
        return self

    def _go_on(self, resumption: reopening.Resumption | None) -> Self:
        if resumption is None:  # it has succeeded
            return self
        if detachable(resumption.request.settings):
            resumption.detach()
        else:
            resumption.reopen()
            resumption.drive(driving.Unseen())
        return self

    def __rich__(self) -> RenderableType:
        """Return its stages, and its attempts where one has failed."""
        snapshot = self.status
        state = display.LOST if snapshot.lost else snapshot.run.state
        shown: list[RenderableType] = [f"Run {self.name} {state}"]
        shown += [snapshot.run.reason] if snapshot.run.reason else []
        shown.append(display.of_stages(snapshot))
        attempts = (
            attempt for stage in snapshot.run.stages.values() for attempt in stage.attempts
        )
        if any(attempt.failure for attempt in attempts):
            shown.append(display.of_attempts(snapshot))
        return Group(*shown)
