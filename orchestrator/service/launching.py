"""Launch a pipeline: here, as a Ray job, or once for each combination of a sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

from orchestrator import wiring
from orchestrator.controller import attempt_requests
from orchestrator.controller.lease import LeaseState
from orchestrator.core.errors import ConfigError, Problem
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.core.runs.states import RunState
from orchestrator.core.settings import Settings
from orchestrator.core.spec.hardware import Pool
from orchestrator.service import driving, runs
from orchestrator.service.planning import PlannedRun, check_detachable, plan_together
from orchestrator.wiring.config_source import ConfigSource


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLaunch:
    """Runs that are planned and that nobody has started: one, or those of a sweep.

    `launch` makes it; commands and the Python interface have it driven, handed over, or shown.
    `flags` chose the config beside the overrides. `continues` is the run from whose checkpoints
    they go on; without `reuse` every stage runs. `notes` says what has another name by now, what
    is left out, and what begins anew.
    """

    runs: Sequence[PlannedRun]
    flags: tuple[str, ...] = ()
    continues: Run | None = None
    reuse: bool = True

    @property
    def notes(self) -> Sequence[str]:
        """What there is to know before, in lines."""
        lines = [
            line
            for planned in self.runs
            for line in (*planned.settings.renamed, *planned.vetted.dropped)
        ]
        if self.continues is not None:
            for planned in self.runs:
                lines += attempt_requests.anew(planned.vetted.plan, self.continues)
        return list(dict.fromkeys(lines))

    def what(self, *, detached: bool = False) -> str:
        """Return what the launch would do, in lines.

        Raises:
            ConfigError: The runs are to be `detached`, and can't be.
        """
        for planned in self.runs if detached else ():
            check_detachable(planned.settings)
        how = "hand over to a Ray job" if detached else "run"
        return "\n".join(f"{how} pipeline {planned.plan.pipeline}" for planned in self.runs)

    def drive(self, view: driving.View) -> Sequence[Run]:
        """Run one after the other, on services that are started once, until one is cancelled."""
        finals: list[Run] = []
        with (
            self._services(lambda: any(map(driving.serves, finals))) as addresses,
            view.interruptible() as interrupts,
        ):
            for planned in self.runs:
                if interrupts.reason or any(r.state is RunState.CANCELLED for r in finals):
                    break
                request = self._request(planned)
                view.begins(request.header)
                finals.append(driving.drive_new(request, addresses, view))
                view.ended(finals[-1])
        return finals

    def detach(self) -> Iterator[RunHeader]:
        """Hand each run to a Ray job, and leave the services up; yield what has been taken."""
        pools, serving = self._needs
        home, first = wiring.home(), self.runs[0].settings
        with driving.handing_over(first, home, pools, gateway=serving):
            for planned in self.runs:
                request = self._request(planned)
                store = wiring.database(request.home)
                store.create(request.header, request.header.created)
                with driving.begun(store, request.header):
                    detach(request)
                yield request.header

    def _request(self, planned: PlannedRun) -> driving.DriveRequest:
        home = wiring.home()
        header = driving.new_header(
            planned.settings,
            planned.vetted.plan,
            home=home,
            continues=self.continues.header.run if self.continues else "",
            flags=self.flags,
        )
        header = replace(header, code=wiring.ship(planned.settings, home, header.run))
        return driving.DriveRequest(
            settings=planned.settings, header=header, home=home, reuse=self.reuse
        )

    @property
    def _needs(self) -> tuple[Mapping[str, Pool], bool]:
        """The pools of all runs together, and whether one of them serves."""
        pools = {
            name: pool
            for planned in self.runs
            for name, pool in driving.startable(planned.settings, planned.vetted.plan).items()
        }
        serving = any(driving.needs_gateway(planned.settings) for planned in self.runs)
        return pools, serving

    def _services(self, keep: Callable[[], bool]) -> AbstractContextManager[driving.Addresses]:
        (pools, serving), settings = self._needs, self.runs[0].settings
        return driving.services(settings, wiring.home(), pools, keep=keep, gateway=serving)


def launch(
    source: ConfigSource,
    *,
    sweep: bool = False,
    unqualified: bool = False,
    continues: str = "",
    reuse: bool = True,
) -> PlannedLaunch:
    """Plan a launch; everything is planned before anything starts.

    With `sweep` once for each combination of the overrides' values. `continues` names a run, whole
    or by its beginning, from whose checkpoints the stages go on.

    Raises:
        ConfigError: With all problems of all runs; or the run to continue still goes on.
        NotFoundError: There is no run to continue.
    """
    earlier = _earlier(continues) if continues else None
    sources = source.combinations() if sweep else [source]
    planned = plan_together(sources, unqualified=unqualified)
    return PlannedLaunch(runs=planned, flags=source.flags, continues=earlier, reuse=reuse)


def _earlier(name: str) -> Run:
    run = runs.find(name)
    store = wiring.database(wiring.home())
    if not run.done and runs.lease_state(store, run) is LeaseState.ALIVE:
        what = f"run {run.header.run!r} still goes on, and saves checkpoints"
        error = ConfigError([Problem("--continue", what, "end it first")])
        error.run = run.header.run
        raise error
    return run


def detach(request: driving.DriveRequest) -> RunHeader:
    """Hand a run of the database to a Ray job, and return its header once that has it.

    Raises:
        ClusterError: The job has ended, or does not have it in time.
    """
    chosen = {"--no-cache": not request.reuse, "--take-over": request.by_force}
    flags = [flag for flag, given in chosen.items() if given]
    flags += ["--by", request.by] if request.by else []
    store = wiring.database(request.home)
    before = runs.load(store, request.header)
    job = wiring.submit(request.settings, request.home, request.header.run, flags)
    patience = driving.hand_over_patience(request.settings)
    driving.hand_over(job, store, before, wiring.clock(), patience)
    return request.header


def drive_detached(
    run: str, view: driving.View, *, reuse: bool, take_over: bool, by: str = ""
) -> Run:
    """Drive a run that the database has, as the Ray job does that it was handed to.

    `by` is the reaper that has it go on, if one does.

    Raises:
        HeldError: It has a controller that lives, and this one is not to take it over.
    """
    home = wiring.home()
    store = wiring.database(home)
    header = store.header(run)
    settings = wiring.configs.parse(header.config)
    request = driving.DriveRequest(
        settings=settings, header=header, home=home, reuse=reuse, by_force=take_over, by=by
    )
    with driving.begun(store, header):
        return driving.drive(request, view, new=False, keep=lambda _: True)


def take_over_environment(run: str) -> None:
    """Take what was sealed for the controller of `run`, where this process is that.

    Raises:
        ClusterError: It was sealed by another secret, or for another run.
    """
    wiring.take_over_environment(run)


def settings_of(run: str) -> Settings:
    """Return the settings of a run that the database has.

    Raises:
        NotFoundError: It has none of that name.
    """
    return wiring.configs.parse(runs.find(run).header.config)
