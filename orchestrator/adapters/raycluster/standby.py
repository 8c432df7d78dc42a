"""Workers that stand by: placed on the next pool of a stage, with all imports done.

Rules: only where there is room; they give way to whoever needs their pool; an attempt gets them
only if they are what it asks for, all of them alive.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container
from dataclasses import replace

import ray

from orchestrator.adapters.raycluster import ray_errors
from orchestrator.adapters.raycluster.member import muster, sealed
from orchestrator.adapters.raycluster.nodes import ClusterNodes
from orchestrator.adapters.raycluster.placement import Placement, free_room
from orchestrator.messages import AttemptRequest
from orchestrator.ports import Warm

SECONDS_BETWEEN_TRIES = 5.0
_PING_SECONDS = 0.5


class StandbyGang:
    """Workers in their place, and what they were asked to import."""

    def __init__(self, warm: Warm, request: AttemptRequest, nodes: ClusterNodes) -> None:
        """Send them there; returns at once."""
        self.request = request
        self.place = Placement(request, nodes, {}, together=True)
        self.actors = [] if self.place.impossible else muster(self.place)
        parcel = sealed(warm, self.place.request)
        self._warm = [actor.warm.remote(parcel) for actor in self.actors]

    def fits(self, request: AttemptRequest) -> bool:
        """Whether they can do what `request` asks for, now."""
        ours, theirs = self.request, request
        alike = _fixed_parts(ours) == _fixed_parts(theirs)
        return alike and set(theirs.avoid) <= set(ours.avoid) and self._alive()

    def adopt(self, request: AttemptRequest) -> Placement:
        """Return their place as that of `request`."""
        self.place.request = replace(request, needs=self.place.request.needs)
        return self.place

    def end(self) -> None:
        """Send them away and give the place back."""
        for actor in self.actors:
            ray.kill(actor)
        self.place.give_back()

    def _alive(self) -> bool:
        if not self.actors or not self.place.created:
            return False
        try:
            # A worker that died while it imported is told a moment later.
            ready, busy = ray.wait(self._warm, num_returns=len(self._warm), timeout=_PING_SECONDS)
            ray.get(ready)
            if busy:
                return True  # still importing, which is sooner done than begun
            pings = [actor.ping.remote() for actor in self.actors]
            ray.get(pings, timeout=_PING_SECONDS)
        except ray_errors.ERRORS:
            return False
        return True


def _fixed_parts(request: AttemptRequest) -> tuple[object, ...]:
    """Return what a process that was started for `request` can't be changed in."""
    return request.pool, request.needs, request.job, request.env


class StandbyGangs:
    """The gangs that stand by, one for a stage of a run at most."""

    def __init__(
        self, warm: Warm, nodes: ClusterNodes, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Have none; each will import what `warm` does."""
        self._warm = warm
        self._nodes = nodes
        self._now = now
        self._wanted: dict[tuple[str, str], AttemptRequest] = {}
        self._gangs: dict[tuple[str, str], StandbyGang] = {}
        self._next_try = 0.0

    def want(self, request: AttemptRequest) -> None:
        """Have a gang stand by for attempts like `request`, as soon as there is room."""
        self.release(request.run, request.stage)
        self._wanted[request.run, request.stage] = request
        self._next_try = 0.0

    def has(self, run: str, stage: str) -> bool:
        """Return whether anybody stands by for `stage` of `run`."""
        return (run, stage) in self._gangs

    def send_out(self, waited_for: Container[str] = ()) -> None:
        """Send out the gangs for which there is room now; on pools that are `waited_for` none is.

        A gang would hold there what an attempt is about to get.
        """
        missing = {
            key
            for key in self._wanted.keys() - self._gangs.keys()
            if self._wanted[key].pool.name not in waited_for
        }
        if not missing or self._now() < self._next_try:
            return
        self._next_try = self._now() + SECONDS_BETWEEN_TRIES
        for key in missing:
            request = self._wanted[key]
            try:
                if free_room(request, self._nodes) >= request.needs.workers:
                    self._gangs[key] = StandbyGang(self._warm, request, self._nodes)
            except ray_errors.ERRORS:
                return  # it was only a help

    def take(self, request: AttemptRequest) -> StandbyGang | None:
        """Return the gang for `request`, which is then the caller's; others leave its pool."""
        key = (request.run, request.stage)
        gang = self._gangs.pop(key) if key in self._on(request.pool.name) else None
        for other in self._on(request.pool.name):
            self._gangs.pop(other).end()
        if gang is None:
            return None
        del self._wanted[key]
        if gang.fits(request):
            return gang
        gang.end()
        return None

    def release(self, run: str, stage: str) -> None:
        """Send away who stands by for `stage` of `run`."""
        self._wanted.pop((run, stage), None)
        gang = self._gangs.pop((run, stage), None)
        if gang is not None:
            gang.end()

    def close(self) -> None:
        """Send all away."""
        for run, stage in list(self._wanted):
            self.release(run, stage)

    def _on(self, pool: str) -> list[tuple[str, str]]:
        return [key for key, gang in self._gangs.items() if gang.request.pool.name == pool]
