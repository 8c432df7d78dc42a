"""How runs stand: stages, attempts, controllers, and what could not be told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from orchestrator import wiring
from orchestrator.controller.lease import LeaseState, lease_state
from orchestrator.core.runs.run import Attempt, Run
from orchestrator.messages import Busy, Lease, Progress, Untold
from orchestrator.service import runs
from orchestrator.supervisor import holder


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run, what is known of its controller, and the time up to which it has lived (epoch).

    For `silent` seconds since then it has shown no life. `untold` is what could not be told of it,
    `busy` what its attempts wait in, `progress` how far they are, by stage and number.
    """

    run: Run
    controller: LeaseState | None
    at: float
    silent: float = 0.0
    untold: Sequence[Untold] = ()
    busy: Sequence[Busy] = ()
    progress: Mapping[tuple[str, int], Progress] = field(default_factory=dict)

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
    current = _status(known, store.lease(name), store.now())
    busy = () if current.lost else store.busy(name)
    return replace(current, untold=store.untold(name), busy=busy, progress=store.progress(name))


def _status(run: Run, lease: Lease | None, now: float) -> RunStatus:
    """Nothing of a lost run has run since it was last seen, nor cost anything."""
    controller = lease_state(run, lease, now, holder.lives)
    at = runs.last_sign(run, lease) if controller is LeaseState.GONE else now
    return RunStatus(run, controller, at, max(0.0, now - at))
