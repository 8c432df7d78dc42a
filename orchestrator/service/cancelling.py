"""End a run: its controller is asked to; where nobody controls it any more it is ended here."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator import wiring
from orchestrator.controller.lease import LeasedRuns, LeaseState
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.service import driving, runs
from orchestrator.service.change import Change

SECONDS_TO_WAIT = 30.0
SECONDS_BETWEEN_LOOKS = 0.2
REASON = "cancelled by request"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The run as it stands then, and whether it was ended `here`, without its controller."""

    run: Run
    here: bool = False


def cancel(run: Run, view: driving.View) -> Change[Cancelled]:
    """End a run that has not ended.

    A controller that has not answered in half a minute is left alone: the run has not ended yet.
    `view` shows the run where it is ended here.
    """
    store = wiring.database(wiring.home())
    alive = runs.lease_state(store, run) is LeaseState.ALIVE
    who = "its controller" if alive else "this command, since it has no controller that lives"

    def make() -> Cancelled:
        store.request_cancel(run.header.run)
        ended = _wait(store, run)
        if not ended.done and runs.lease_state(store, ended) is not LeaseState.ALIVE:
            return Cancelled(_end(run.header, view), here=True)
        return Cancelled(ended)

    return Change(f"have run {run.header.run} ended by {who}", make)


def _wait(store: LeasedRuns, run: Run) -> Run:
    """Wait until `run` has ended, or its controller is gone; return it."""
    clock = wiring.clock()
    until = clock.monotonic() + SECONDS_TO_WAIT
    run = runs.caught_up(store, run)
    while clock.monotonic() < until:
        if run.done or runs.lease_state(store, run) is LeaseState.GONE:
            break
        clock.sleep(SECONDS_BETWEEN_LOOKS)
        run = runs.caught_up(store, run)
    return run


def _end(header: RunHeader, view: driving.View) -> Run:
    """Take the run over from nobody, and end it."""
    settings, home = wiring.configs.parse(header.config), wiring.home()
    request = driving.DriveRequest(settings=settings, header=header, home=home)
    with driving.tracking_alone(settings, home) as addresses:
        return driving.wind_down(request, addresses, view, REASON)
