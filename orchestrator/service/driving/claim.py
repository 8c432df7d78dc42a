"""Whether a run may be taken over: not from a controller that lives, unless by force."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orchestrator.controller.lease import LeasedRuns, LeaseState, lease_state
from orchestrator.core.errors import HeldError
from orchestrator.core.runs.fold import fold
from orchestrator.core.runs.run import Run, RunHeader
from orchestrator.core.runs.states import RunStarted
from orchestrator.messages import Lease
from orchestrator.ports import Stored
from orchestrator.supervisor import holder


def claim(store: LeasedRuns, header: RunHeader, *, by_force: bool) -> Run:
    """Return the run of `header` as it stands; it may be taken over.

    Raises:
        HeldError: It has a controller that lives; `by_force` does not ask.
    """
    events = store.events(header.run)
    run = fold(header, ((item.at, item.event) for item in events))
    lease, now = store.lease(header.run), store.now()
    if by_force or lease_state(run, lease, now, holder.lives) is not LeaseState.ALIVE:
        return run
    error = HeldError(_refusal(header.run, events, lease, now))
    error.run = header.run
    raise error


def _refusal(run: str, events: Sequence[Stored], lease: Lease | None, now: float) -> str:
    began = [item.at for item in events if isinstance(item.event, RunStarted)]
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began[-1])) if began else "?"
    who = holder.in_words(lease.holder) if lease else ""
    seen = f", seen {now - abs(lease.at):.0f} s ago" if lease else ""
    return f"run {run!r} has a controller since {since} ({who or 'elsewhere'}{seen})"
