"""Slots at replicas: who is asked next, and who waits.

A request gets a slot at the replica of its revision with the fewest requests in flight. Where all
are taken the overflow revision gives one, else the request waits in the endpoint's queue, which is
bounded. A replica that failed is ejected for a while. A revision without any replica is waited
for, a few seconds, and then the other ones that take traffic help out. Where those have none
either, it is waited for somewhat longer, and as long as for a slot where it is started for the
request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from orchestrator.serving.errors import ApiError
from orchestrator.serving.limits import Limits
from orchestrator.serving.routes import EndpointRoute, RevisionRoute, Routes
from orchestrator.serving.traffic_split import choose

_LOOK = 0.05
_FIRST_EJECTION, _LONGEST_EJECTION = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one request at the replica `url` of a revision."""

    endpoint: str
    revision: RevisionRoute
    url: str


@dataclass(slots=True, eq=False)
class Pending:
    """A request that wants a slot, best at `revision`, and not at the replica `avoid`."""

    endpoint: str
    client: str
    avoid: str
    since: float
    revision: str
    slot: asyncio.Future[Slot] = field(repr=False)


class Slots:
    """All slots of a gateway. Its counts are its own: other gateways have others."""

    def __init__(self, routes: Routes, limits: Limits, rng: Random) -> None:
        self._routes = routes
        self._limits = limits
        self._rng = rng
        self._turn = 0
        self._taken: dict[str, int] = {}
        self._ejected: dict[str, tuple[float, float]] = {}  # until when, and for how long
        self._waiting: dict[str, dict[Pending, None]] = {}
        self._looking: asyncio.TimerHandle | None = None

    @property
    def taken(self) -> Mapping[str, int]:
        """Requests in flight, by replica."""
        return self._taken

    def waiting(self) -> dict[str, int]:
        """Return how many requests wait, by endpoint."""
        return {name: len(waiting) for name, waiting in self._waiting.items()}

    def route(self, name: str) -> EndpointRoute:
        """Return the endpoint `name`, as the newest table has it.

        Raises:
            ApiError: It is gone.
        """
        route = self._routes.table().endpoints.get(name)
        if route is None:
            raise ApiError(404, f"no endpoint {name!r} here", code="model_not_found")
        return route

    async def take(self, name: str, client: str, avoid: str = "") -> Slot:
        """Return a slot; wait for one.

        Raises:
            ApiError: The queue is full, or it took too long, or there is no replica at all.
        """
        route = self.route(name)
        loop = asyncio.get_running_loop()
        now = loop.time()
        chosen = choose(route, client, self._rng)
        slot = None if chosen is None else self._slot(route, chosen, avoid, now)
        if slot is not None:  # so it goes nearly always
            return slot
        wanted = "" if chosen is None else chosen.name
        pending = Pending(name, client, avoid, now, wanted, loop.create_future())
        slot = self._offer(pending, route, now)
        if slot is not None:
            return slot
        queue = self._waiting.setdefault(name, {})
        if len(queue) >= route.queue:
            raise _full(f"{len(queue)} requests wait for model {name!r} already")
        return await self._wait(pending, queue)

    def take_at(self, name: str, revision: str) -> Slot | None:
        """Return a slot at `revision`, if there is one at this moment."""
        now = asyncio.get_running_loop().time()
        route = self.route(name)
        return next((self._slot(route, r, "", now) for r in _named(route, revision)), None)

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        left = self._taken.get(slot.url, 0) - 1
        if left > 0:
            self._taken[slot.url] = left
        else:
            self._taken.pop(slot.url, None)
        if self._waiting.get(slot.endpoint):
            self._serve(slot.endpoint)

    def eject(self, url: str) -> None:
        """Ask the replica `url` nothing for a while: it failed."""
        _, before = self._ejected.get(url, (0.0, 0.0))
        pause = min(max(_FIRST_EJECTION, 2 * before), _LONGEST_EJECTION)
        self._ejected[url] = (asyncio.get_running_loop().time() + pause, pause)

    def readmit(self, url: str) -> None:
        """Forget that the replica `url` failed: it has answered."""
        if self._ejected:
            self._ejected.pop(url, None)

    async def _wait(self, pending: Pending, queue: dict[Pending, None]) -> Slot:
        queue[pending] = None
        self._look_later()
        try:
            return await pending.slot
        except asyncio.CancelledError:
            if pending.slot.done() and not pending.slot.cancelled():
                self.release(pending.slot.result())
            raise
        finally:
            queue.pop(pending, None)

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Look at the table again: it may have new replicas, or other shares."""
        self._looking = None
        for name in list(self._waiting):
            self._serve(name)
            if not self._waiting[name]:
                del self._waiting[name]
        if self._waiting:
            self._look_later()

    def _serve(self, name: str) -> None:
        """Give what slots there are to those who wait, first come, first served."""
        now = asyncio.get_running_loop().time()
        for pending in list(self._waiting[name]):
            if pending.slot.done():
                continue
            try:
                slot = self._offer(pending, self.route(name), now)
            except ApiError as error:
                pending.slot.set_exception(error)
                continue
            if slot is not None:
                pending.slot.set_result(slot)

    def _offer(self, pending: Pending, route: EndpointRoute, now: float) -> Slot | None:
        """Return a slot for `pending`, or `None` while it must wait."""
        first = next((r for r in _named(route, pending.revision) if r.share > 0), None)
        if first is None:  # traffic has moved meanwhile
            first = choose(route, pending.client, self._rng)
            pending.revision = "" if first is None else first.name
        candidates = [first] if first is not None else []
        candidates += _named(route, route.overflow)
        for revision in candidates:
            slot = self._slot(route, revision, pending.avoid, now)
            if slot is not None:
                return slot
        return self._help(pending, route, candidates, now)

    def _help(
        self, pending: Pending, route: EndpointRoute, asked: list[RevisionRoute], now: float
    ) -> Slot | None:
        """Return a slot elsewhere for a request whose revisions have had no replica for long."""
        waited = now - pending.since
        there = self._usable_replica(asked, now)
        if waited > self._limits.queue_seconds and (there or not route.rests):
            raise _full(f"model {route.name!r} had no room for {waited:.0f} s")
        if waited <= self._limits.absent_seconds or there:
            return None
        others = [r for r in route.revisions if r.share > 0 and r not in asked]
        for revision in others:
            slot = self._slot(route, revision, pending.avoid, now)
            if slot is not None:
                return slot
        patience = self._limits.queue_seconds if route.rests else self._limits.gone_seconds
        if waited <= patience or self._usable_replica(others, now):
            return None
        message = f"model {route.name!r} has no replica at the moment"
        raise ApiError(503, message, code="no_replica", retry_after=2)

    def _usable_replica(self, revisions: Iterable[RevisionRoute], now: float) -> bool:
        return any(self._awake(url, now) for r in revisions for url in r.urls)

    def _awake(self, url: str, now: float) -> bool:
        return not self._ejected or self._ejected.get(url, (0.0, 0.0))[0] <= now

    def _slot(
        self, route: EndpointRoute, revision: RevisionRoute, avoid: str, now: float
    ) -> Slot | None:
        urls = revision.urls
        self._turn += 1
        best, least = "", route.concurrency
        for i in range(len(urls)):
            url = urls[(self._turn + i) % len(urls)]
            taken = self._taken.get(url, 0)
            usable = self._awake(url, now) and (url != avoid or len(urls) == 1)
            if taken < least and usable:
                best, least = url, taken
        if not best:
            return None
        self._taken[best] = least + 1
        return Slot(route.name, revision, best)


def _named(route: EndpointRoute, name: str) -> list[RevisionRoute]:
    return [revision for revision in route.revisions if revision.name == name]


def _full(why: str) -> ApiError:
    return ApiError(429, f"{why}; try again", code="queue_full", retry_after=1)
