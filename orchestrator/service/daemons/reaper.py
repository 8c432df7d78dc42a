"""The service that looks after runs whose controller is gone: they go on, or are shown as lost.

It also keeps the champions of the registry in step with the traffic of endpoints.

It ends when for a while no run is left to look after and nobody uses the services of this home;
where `up` keeps it, once it is stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from orchestrator import wiring
from orchestrator.controller.reaper import Reaper
from orchestrator.core.runs.run import Run
from orchestrator.error_boundary import BestEffort, outcome
from orchestrator.ports import EndpointLog
from orchestrator.service.take_overs import TakeOvers
from orchestrator.supervisor import holder, tenancy

SECONDS_BETWEEN_LOOKS = 5.0
IDLE_LOOKS = 12  # a detached run needs a moment until its controller is up


def run(tell: Callable[[str], None]) -> None:
    """Look every few seconds; `tell` hears which runs go on or were ended, and why."""
    home, clock = wiring.home(), wiring.clock()
    store = wiring.database(home)

    def bury(orphan: Run, reason: str) -> bool:
        tell(f"{orphan.header.run}: {reason}")
        return wiring.bury(home, orphan, reason)

    reaper = Reaper(store, holder.lives, bury, TakeOvers(home, tell))
    endpoints, followed = wiring.database(home), dict[str, int]()
    best_effort, idle = BestEffort(), 0
    while idle < IDLE_LOOKS:
        clock.sleep(SECONDS_BETWEEN_LOOKS)
        looked = outcome(reaper.reap, but=())
        if looked.error is not None:  # a database that is away comes back
            best_effort.failed("looks at leases were not possible", looked.error)
        busy = looked.error is not None or bool(looked.value)
        busy = busy or tenancy.used(home) or wiring.reaper_stays(home)
        follow = partial(_follow, home, endpoints, followed)
        best_effort.tell("looks at traffic were not possible", follow, but=())
        idle = 0 if busy else idle + 1


def _follow(home: Path, endpoints: EndpointLog, followed: dict[str, int]) -> None:
    """Tell the registry of models whose traffic has moved; later, where it is away."""
    for name, life in endpoints.endpoints().items():
        if followed.get(name) != life.seq and wiring.follow_traffic(home, life):
            followed[name] = life.seq
