"""A run whose controller has died goes on by itself: a reaper hands it to a job of its cluster.

That is done as `resume --detach` does it, where the reaper's host reaches the cluster and has what
the run needs. Of several reapers that try one wins: the first controller that begins holds the run
from then on, and the others end. A cluster that a home has started is for its own commands alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from orchestrator import wiring
from orchestrator.controller.reaper import Declined
from orchestrator.core.own_host import is_bare_name, leads_home
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import AttemptSaved, AttemptSucceeded, RunStarted
from orchestrator.error_boundary import Outcome, outcome, reason
from orchestrator.ports import Stored
from orchestrator.service import driving
from orchestrator.service.launching import detach

HandOver: TypeAlias = Callable[[driving.DriveRequest], object]
_GETS_ON = (AttemptSaved, AttemptSucceeded)


class TakeOvers:
    """Hands runs over, each in a thread; `tell` takes a line about it."""

    def __init__(
        self,
        home: Path,
        tell: Callable[[str], None],
        hand_over: HandOver | None = None,
    ) -> None:
        """Have none in hand; `hand_over` hands one over, and returns once a controller has it."""
        self._home, self._tell = home, tell
        self._hand_over = hand_over or _hand_over
        self._handed: dict[tuple[str, int], _Handing] = {}

    def __call__(self, run: Run, events: Sequence[Stored]) -> Declined | None:
        """Have a run go on; return why this reaper does not, `None` while it is on its way."""
        key = run.header.run, run.epoch
        if key not in self._handed:
            declined = next(_obstacles(run, events, self._home), None)
            if declined is not None:
                return declined
            settings = wiring.configs.parse(run.header.config)
            request = driving.DriveRequest(
                settings=settings,
                header=run.header,
                home=self._home,
                by=f"the reaper of {wiring.host()}",
            )
            self._tell(f"{run.header.run}: its controller is gone; handed to a job of its cluster")
            self._handed[key] = _Handing(request, self._hand_over)
        handed = self._handed[key].outcome
        if handed is None or handed.error is None:
            return None
        return Declined(f"it could not be handed over: {reason(handed.error)}", others=True)


class _Handing:
    """One that is on its way; `outcome` is set at its end."""

    def __init__(self, request: driving.DriveRequest, hand_over: HandOver) -> None:
        self.outcome: Outcome[object] | None = None
        self._call = partial(hand_over, request)
        threading.Thread(target=self._run, name="hands over", daemon=True).start()

    def _run(self) -> None:
        self.outcome = outcome(self._call, but=())


def _hand_over(request: driving.DriveRequest) -> None:
    if wiring.hands_far(request.settings):
        wiring.check_handing_over(request.settings)
    detach(request)


def _obstacles(run: Run, events: Sequence[Stored], home: Path) -> Iterator[Declined]:
    """Yield why a run does not go on by itself, or not from here."""
    settings, name = wiring.configs.parse(run.header.config), run.header.run
    most, tried = settings.cluster.take_overs, in_a_row(events)
    if settings.cluster.kind != "ray" or not settings.cluster.address:
        yield Declined("its cluster was started for its own commands", others=False)
    if not most:
        yield Declined("cluster.take_overs is 0", others=False)
    if wiring.database(home).cancel_requested(name):
        yield Declined("somebody has asked for its end", others=False)
    if tried >= most:
        yield Declined(f"it went on {tried} times by itself, and did not get on", others=False)
    if leads_home(settings.cluster.address) and not driving.from_here(run.header.tags):
        yield Declined(f"{settings.cluster.address!r} is on another host", others=True)
    if is_bare_name(settings.cluster.address) and driving.from_namesake(run.header.tags):
        yield Declined(_namesake(settings.cluster.address), others=True)
    for problem in wiring.secret_problems(run.plan):
        yield Declined(f"it can't go on from {wiring.host()!r}: {problem}", others=True)


def _namesake(address: str) -> str:
    who = f"it was launched on another host that is called {wiring.host()!r}"
    return f"{who}, whose {address!r} may be another cluster than the one that is called so here"


def in_a_row(events: Sequence[Stored]) -> int:
    """Return how often reapers had a run go on since it last got on, or somebody began it."""
    count = 0
    for stored in reversed(events):
        event = stored.event
        if isinstance(event, _GETS_ON) or (isinstance(event, RunStarted) and not event.by):
            break
        count += isinstance(event, RunStarted)
    return count
