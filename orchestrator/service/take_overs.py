"""A run whose controller has died goes on by itself: a reaper hands it to a job of its cluster.

That is done as `resume --detach` does it, where the reaper's host reaches the cluster and has what
the run needs. Of several reapers that try one wins: the first controller that begins holds the run
from then on, and the others end. A cluster that does not take it, as one whose head is away, is
asked again for as long as a run waits for its head, and longer: that head may have run the
controller. A cluster that a home has started is for its own commands alone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from orchestrator import wiring
from orchestrator.controller.reaper import SECONDS_FOR_OTHERS, Declined
from orchestrator.core.own_host import is_bare_name, leads_home
from orchestrator.core.runs.run import Run
from orchestrator.core.runs.states import AttemptSaved, AttemptSucceeded, RunStarted
from orchestrator.error_boundary import Outcome, outcome, reason
from orchestrator.ports import Stored
from orchestrator.service import driving
from orchestrator.service.launching import detach

HandOver: TypeAlias = Callable[[driving.DriveRequest], object]
_GETS_ON = (AttemptSaved, AttemptSucceeded)
SECONDS_BETWEEN = 20.0  # tries to hand a run over


class TakeOvers:
    """Hands runs over, each in a thread; `tell` takes a line about it."""

    def __init__(
        self,
        home: Path,
        tell: Callable[[str], None],
        hand_over: HandOver | None = None,
        *,
        between: float = SECONDS_BETWEEN,
    ) -> None:
        """Have none in hand; `hand_over` hands one over, and returns once a controller has it.

        One that could not be is tried again `between` seconds later.
        """
        self._home, self._tell, self._between = home, tell, between
        self._hand_over = hand_over or _hand_over
        self._handed: dict[tuple[str, int], _Handing] = {}

    def __call__(self, run: Run, events: Sequence[Stored]) -> Declined | None:
        """Have a run go on; return why this reaper does not, `None` while it is on its way."""
        key = run.header.run, run.epoch
        settings = wiring.configs.parse(run.header.config)
        handed = self._handed.get(key)
        if handed is None or handed.failed_before(time.monotonic() - self._between):
            declined = next(_obstacles(run, events, self._home), None)
            if declined is not None:
                return declined
            request = driving.DriveRequest(
                settings=settings,
                header=run.header,
                home=self._home,
                by=f"the reaper of {wiring.host()}",
            )
            self._tell(f"{run.header.run}: its controller is gone; handed to a job of its cluster")
            handed = self._handed[key] = _Handing(request, self._hand_over)
        if handed.outcome is None or handed.outcome.error is None:
            return None
        why = f"it could not be handed over: {reason(handed.outcome.error)}"
        patience = settings.cluster.patience + SECONDS_FOR_OTHERS
        return Declined(why, others=True, patience=patience)


class _Handing:
    """One that is on its way; `outcome` is set at its end."""

    def __init__(self, request: driving.DriveRequest, hand_over: HandOver) -> None:
        self.outcome: Outcome[object] | None = None
        self._ended = 0.0
        self._call = partial(hand_over, request)
        threading.Thread(target=self._run, name="hands over", daemon=True).start()

    def failed_before(self, when: float) -> bool:
        """Whether it could not be handed over, and that was known before `when`, monotonic."""
        return bool(self.outcome and self.outcome.error) and self._ended < when

    def _run(self) -> None:
        done = outcome(self._call, but=())
        self._ended = time.monotonic()
        self.outcome = done


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
