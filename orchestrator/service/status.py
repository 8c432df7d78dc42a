"""How runs stand: stages, attempts, controllers, and what could not be told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import wiring
from orchestrator.controller.lease import LeaseState, lease_state
from orchestrator.core.runs.run import Attempt, Run
from orchestrator.core.runs.states import RunStarted
from orchestrator.messages import Busy, Lease, Progress, Untold
from orchestrator.ports import Stored
from orchestrator.service import runs
from orchestrator.supervisor import holder


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run, what is known of its controller, and the time up to which it has lived (epoch).

    For `silent` seconds since then it has shown no life. `untold` is what could not be told of it,
    `busy` what its attempts wait in, `progress` how far they are, by stage and number. `driver` is
    in words who drives it, with the reaper that had it go on by itself, if one did.
    """

    run: Run
    controller: LeaseState | None
    at: float
    silent: float = 0.0
    untold: Sequence[Untold] = ()
    busy: Sequence[Busy] = ()
    progress: Mapping[tuple[str, int], Progress] = field(default_factory=dict)
    driver: str = ""

    @property
    def lost(self) -> bool:
        """Whether its controller is gone before its end."""
        return self.controller is LeaseState.GONE

    def occupation(self, attempt: Attempt | None) -> Busy | None:
        """Return what an attempt is busy with, if it runs and is."""
        if attempt is None or not attempt.active:
            return None
        mine = (attempt.stage, attempt.number)
        return next((busy for busy in self.busy if (busy.stage, busy.attempt) == mine), None)


def newest(limit: int) -> Sequence[RunStatus]:
    """Return how the newest runs stand, at most `limit` of them, the newest first."""
    store = wiring.database(wiring.home())
    known = runs.load_all(store, store.runs(limit))
    now, held = store.now(), {lease.run: lease for lease in store.leases()}
    return [_status(run, held.get(run.header.run), now) for run in known]


def status(run: str) -> RunStatus:
    """Return how a run stands, named by its id or the beginning of that.

    Raises:
        NotFoundError: There is none, or there are several.
    """
    store = wiring.database(wiring.home())
    known = runs.load(store, store.header(run))
    name = known.header.run
    lease = store.lease(name)
    current = _status(known, lease, store.now())
    busy = () if current.lost else store.busy(name)
    driver = _driver(lease, store.events(name)) if current.controller is LeaseState.ALIVE else ""
    current = replace(current, busy=busy, driver=driver)
    return replace(current, untold=store.untold(name), progress=store.progress(name))


def _driver(lease: Lease | None, events: Sequence[Stored]) -> str:
    who = (holder.in_words(lease.holder) if lease else "") or "a controller elsewhere"
    begun = (item.event for item in reversed(events))
    last = next((event for event in begun if isinstance(event, RunStarted)), None)
    return f"{who}, handed over by {last.by}" if last and last.by else who


def _status(run: Run, lease: Lease | None, now: float) -> RunStatus:
    """Nothing of a lost run has run since it was last seen, nor cost anything."""
    controller = lease_state(run, lease, now, holder.lives)
    at = runs.last_sign(run, lease) if controller is LeaseState.GONE else now
    return RunStatus(run, controller, at, max(0.0, now - at))
