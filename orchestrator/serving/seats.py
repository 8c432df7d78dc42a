"""Room at replicas: who is asked next, and who waits.

A request gets a seat at the replica of its revision with the fewest requests in flight. Where all
are taken the overflow revision gives one, else the request waits in the endpoint's queue, which is
bounded. A replica that failed rests for a while. A revision without any replica is waited for,
a few seconds, and then the other ones that take traffic help out. Where those have none either,
it is waited for somewhat longer, and as long as for a seat where it is started for the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from random import Random

from orchestrator.serving.choosing import choose
from orchestrator.serving.errors import ApiError
from orchestrator.serving.limits import Limits
from orchestrator.serving.routes import EndpointRoute, RevisionRoute, Routes

_LOOK = 0.05
_FIRST_REST, _LONGEST_REST = 0.2, 5.0


@dataclass(frozen=True, slots=True)
class Seat:
    """Room for one request at the replica `url` of a revision."""

    endpoint: str
    revision: RevisionRoute
    url: str


@dataclass(slots=True, eq=False)
class _Wish:
    """A request that wants a seat, best at `revision`, and not at the replica `avoid`."""

    endpoint: str
    client: str
    avoid: str
    since: float
    revision: str
    seat: asyncio.Future[Seat] = field(repr=False)


class Seats:
    """All seats of a gateway. Its counts are its own: other gateways have others."""

    def __init__(self, routes: Routes, limits: Limits, rng: Random) -> None:
        self._routes = routes
        self._limits = limits
        self._rng = rng
        self._turn = 0
        self._taken: dict[str, int] = {}
        self._rests: dict[str, tuple[float, float]] = {}  # until when, and for how long
        self._waiting: dict[str, dict[_Wish, None]] = {}
        self._looking: asyncio.TimerHandle | None = None

    @property
    def taken(self) -> Mapping[str, int]:
        """Requests in flight, by replica."""
        return self._taken

    def waiting(self) -> dict[str, int]:
        """Return how many requests wait, by endpoint."""
        return {name: len(wishes) for name, wishes in self._waiting.items()}

    def route(self, name: str) -> EndpointRoute:
        """Return the endpoint `name`, as the newest table has it.

        Raises:
            ApiError: It is gone.
        """
        route = self._routes.table().endpoints.get(name)
        if route is None:
            raise ApiError(404, f"no endpoint {name!r} here", code="model_not_found")
        return route

    async def take(self, name: str, client: str, avoid: str = "") -> Seat:
        """Return a seat; wait for one.

        Raises:
            ApiError: The queue is full, or it took too long, or there is no replica at all.
        """
        route = self.route(name)
        loop = asyncio.get_running_loop()
        now = loop.time()
        chosen = choose(route, client, self._rng)
        seat = None if chosen is None else self._seat(route, chosen, avoid, now)
        if seat is not None:  # so it goes nearly always
            return seat
        wanted = "" if chosen is None else chosen.name
        wish = _Wish(name, client, avoid, now, wanted, loop.create_future())
        seat = self._offer(wish, route, now)
        if seat is not None:
            return seat
        queue = self._waiting.setdefault(name, {})
        if len(queue) >= route.queue:
            raise _full(f"{len(queue)} requests wait for model {name!r} already")
        return await self._wait(wish, queue)

    def take_at(self, name: str, revision: str) -> Seat | None:
        """Return a seat at `revision`, if there is one at this moment."""
        now = asyncio.get_running_loop().time()
        route = self.route(name)
        return next((self._seat(route, r, "", now) for r in _named(route, revision)), None)

    def leave(self, seat: Seat) -> None:
        """Give a seat back."""
        left = self._taken.get(seat.url, 0) - 1
        if left > 0:
            self._taken[seat.url] = left
        else:
            self._taken.pop(seat.url, None)
        if self._waiting.get(seat.endpoint):
            self._serve(seat.endpoint)

    def rest(self, url: str) -> None:
        """Ask the replica `url` nothing for a while: it failed."""
        _, before = self._rests.get(url, (0.0, 0.0))
        pause = min(max(_FIRST_REST, 2 * before), _LONGEST_REST)
        self._rests[url] = (asyncio.get_running_loop().time() + pause, pause)

    def well(self, url: str) -> None:
        """Forget that the replica `url` failed: it has answered."""
        if self._rests:
            self._rests.pop(url, None)

    async def _wait(self, wish: _Wish, queue: dict[_Wish, None]) -> Seat:
        queue[wish] = None
        self._look_later()
        try:
            return await wish.seat
        except asyncio.CancelledError:
            if wish.seat.done() and not wish.seat.cancelled():
                self.leave(wish.seat.result())
            raise
        finally:
            queue.pop(wish, None)

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
        """Give what seats there are to those who wait, first come, first served."""
        now = asyncio.get_running_loop().time()
        for wish in list(self._waiting[name]):
            if wish.seat.done():
                continue
            try:
                seat = self._offer(wish, self.route(name), now)
            except ApiError as error:
                wish.seat.set_exception(error)
                continue
            if seat is not None:
                wish.seat.set_result(seat)

    def _offer(self, wish: _Wish, route: EndpointRoute, now: float) -> Seat | None:
        """Return a seat for `wish`, or `None` while it must wait."""
        first = next((r for r in _named(route, wish.revision) if r.share > 0), None)
        if first is None:  # traffic has moved meanwhile
            first = choose(route, wish.client, self._rng)
            wish.revision = "" if first is None else first.name
        candidates = [first] if first is not None else []
        candidates += _named(route, route.overflow)
        for revision in candidates:
            seat = self._seat(route, revision, wish.avoid, now)
            if seat is not None:
                return seat
        return self._help(wish, route, candidates, now)

    def _help(
        self, wish: _Wish, route: EndpointRoute, asked: list[RevisionRoute], now: float
    ) -> Seat | None:
        """Return a seat elsewhere for a wish whose revisions have had no replica for long."""
        waited = now - wish.since
        there = self._there(asked, now)
        if waited > self._limits.queue_seconds and (there or not route.rests):
            raise _full(f"model {route.name!r} had no room for {waited:.0f} s")
        if waited <= self._limits.absent_seconds or there:
            return None
        others = [r for r in route.revisions if r.share > 0 and r not in asked]
        for revision in others:
            seat = self._seat(route, revision, wish.avoid, now)
            if seat is not None:
                return seat
        patience = self._limits.queue_seconds if route.rests else self._limits.gone_seconds
        if waited <= patience or self._there(others, now):
            return None
        message = f"model {route.name!r} has no replica at the moment"
        raise ApiError(503, message, code="no_replica", retry_after=2)

    def _there(self, revisions: Iterable[RevisionRoute], now: float) -> bool:
        return any(self._awake(url, now) for r in revisions for url in r.urls)

    def _awake(self, url: str, now: float) -> bool:
        return not self._rests or self._rests.get(url, (0.0, 0.0))[0] <= now

    def _seat(
        self, route: EndpointRoute, revision: RevisionRoute, avoid: str, now: float
    ) -> Seat | None:
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
        return Seat(route.name, revision, best)


def _named(route: EndpointRoute, name: str) -> list[RevisionRoute]:
    return [revision for revision in route.revisions if revision.name == name]


def _full(why: str) -> ApiError:
    return ApiError(429, f"{why}; try again", code="queue_full", retry_after=1)
