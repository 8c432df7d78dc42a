"""Slots at replicas: who is asked next, and who waits.

A request gets a slot at the replica of its revision with the fewest taken; one that is sticky gets
the replica that its client had before, unless that has far more to do than others. Each choice of
a request takes a slot of its own, but a replica with a free one takes a request whole: it is over
its number for a while then, and gets nothing more until it is below it again.

Where all are taken the overflow revision gives one, else the request waits in the endpoint's
queue, which is bounded, and served fairly between keys. A replica that failed is ejected for a
while, and then tried by one request. A revision without any replica is waited for, a few seconds,
and then the other ones that take traffic help out. Where those have none either, it is waited for
somewhat longer, and as long as for a slot where it is started for the request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from random import Random

from orchestrator.serving.gateway.ejection import Ejection, Ejections
from orchestrator.serving.gateway.fair_queue import Share
from orchestrator.serving.gateway.request_queue import Pending, RequestQueue
from orchestrator.serving.gateway.routes import EndpointRoute, RevisionRoute, Routes
from orchestrator.serving.gateway.traffic_split import choose
from orchestrator.serving.http.api_errors import ApiError
from orchestrator.serving.http.request_limits import GatewayLimits

_LOOK = 0.05
_STICKY_LOAD = 1.25  # of the mean load of its revision, that a replica keeps its clients up to
_ANYBODY = Share()
_64_BITS = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Slot:
    """Room for one request of `size` choices at the replica `url` of a revision.

    `tries` is the ejection that it may end: the replica has failed before.
    """

    endpoint: str
    revision: RevisionRoute
    url: str
    size: int = 1
    tries: Ejection | None = None


class Slots:
    """All slots of a gateway. Its counts are its own: other gateways have others."""

    def __init__(self, routes: Routes, limits: GatewayLimits, rng: Random) -> None:
        self._routes = routes
        self._limits = limits
        self._rng = rng
        self._turn = 0
        self._in_use: dict[str, int] = {}
        self._ejections = Ejections(limits.eject_seconds)
        self._queues: dict[str, RequestQueue] = {}
        self._marks: dict[str, int] = {}  # of replicas, for sticky clients
        self._next_pass: asyncio.TimerHandle | None = None

    @property
    def in_use(self) -> Mapping[str, int]:
        """Slots in use, by replica."""
        return self._in_use

    def waiting(self) -> dict[str, int]:
        """Return how many requests wait, by endpoint."""
        return {name: len(queue) for name, queue in self._queues.items()}

    def route(self, name: str) -> EndpointRoute:
        """Return the endpoint `name`, as the newest table has it.

        Raises:
            ApiError: It is gone.
        """
        route = self._routes.table().endpoints.get(name)
        if route is None:
            raise ApiError(404, f"no endpoint {name!r} here", code="model_not_found")
        return route

    async def take(self, name: str, client: str, avoid: str = "", share: Share = _ANYBODY) -> Slot:
        """Return a slot; wait for one.

        Args:
            name: The endpoint.
            client: What keeps a request at its revision and replica; empty where nothing does.
            avoid: A replica that has just failed it.
            share: Whose the request is, which decides its turn.

        Raises:
            ApiError: The queue is full, or it took too long, or there is no replica at all.
        """
        route = self.route(name)
        loop = asyncio.get_running_loop()
        now = loop.time()
        chosen = choose(route, client, self._rng)
        revision_name = "" if chosen is None else chosen.name
        pending = Pending(client, avoid, share, now, revision_name, loop.create_future())
        queue = self._queues.get(name)
        if not queue:
            slot = self._offer(pending, route, now)
            if slot is not None:  # so it goes nearly always
                return slot
        if queue is None:
            queue = self._queues[name] = RequestQueue()
        self._make_place(queue, route, share)
        return await self._wait(name, pending, queue)

    def take_at(self, name: str, revision: str) -> Slot | None:
        """Return a slot at `revision`, if there is one at this moment."""
        now = asyncio.get_running_loop().time()
        route = self.route(name)
        nobody = Pending("", "", _ANYBODY, now, revision, asyncio.Future())
        return next((self._slot(route, r, nobody, now) for r in _named(route, revision)), None)

    def release(self, slot: Slot) -> None:
        """Give a slot back."""
        rest = self._in_use.get(slot.url, 0) - slot.size
        if rest > 0:
            self._in_use[slot.url] = rest
        else:
            self._in_use.pop(slot.url, None)
        self.begun(slot)
        if self._queues.get(slot.endpoint):
            self._serve(slot.endpoint)

    def begun(self, slot: Slot) -> None:
        """Let the next request try the replica of `slot`, if this one did: it answers."""
        if slot.tries is not None:
            self._ejections.ended(slot.url, slot.tries, asyncio.get_running_loop().time())

    def eject(self, url: str) -> None:
        """Ask the replica `url` nothing for a while: it failed."""
        self._ejections.eject(url, asyncio.get_running_loop().time())
        routes = self._routes.table().endpoints.values()
        self._ejections.keep({u for route in routes for r in route.revisions for u in r.urls})

    def readmit(self, slot: Slot) -> None:
        """Ask the replica of `slot` as before: it has answered."""
        if slot.tries is not None:
            self._ejections.readmit(slot.url, slot.tries)
            if self._queues.get(slot.endpoint):
                self._serve(slot.endpoint)

    def _make_place(self, queue: RequestQueue, route: EndpointRoute, share: Share) -> None:
        """Have one leave a full queue for a request of `share`, or refuse that."""
        if len(queue) < route.queue:
            return
        gone = queue.displaced(share.flow)
        full = _full(f"{len(queue)} requests wait for model {route.name!r} already")
        if gone is None:
            raise full
        queue.remove(gone)
        if not gone.slot.done():
            gone.slot.set_exception(full)

    async def _wait(self, name: str, pending: Pending, queue: RequestQueue) -> Slot:
        queue.add(pending)
        self._serve(name)
        self._serve_all_later()
        try:
            return await pending.slot
        except asyncio.CancelledError:
            has_slot = pending.slot.done() and not pending.slot.cancelled()
            if has_slot and pending.slot.exception() is None:
                self.release(pending.slot.result())
            raise
        finally:
            queue.remove(pending)

    def _serve_all_later(self) -> None:
        if self._next_pass is None:
            self._next_pass = asyncio.get_running_loop().call_later(_LOOK, self._serve_all)

    def _serve_all(self) -> None:
        """Look at the table again: it may have new replicas, or other shares."""
        self._next_pass = None
        now = asyncio.get_running_loop().time()
        for name, queue in list(self._queues.items()):
            self._follow_traffic(name, queue)
            self._serve(name)
            self._refuse_late(name, queue, now)
            if not queue:
                del self._queues[name]
        if self._queues:
            self._serve_all_later()

    def _follow_traffic(self, name: str, queue: RequestQueue) -> None:
        """Have those whose revision takes no traffic any more want another one."""
        route = self._routes.table().endpoints.get(name)
        if route is None:
            return
        taking = {revision.name for revision in route.revisions if revision.share > 0}
        moved = [p for r in queue.revisions() if r not in taking for p in queue.oldest_first(r)]
        for pending in [*moved, *(p for p in queue.again() if p.revision not in taking)]:
            chosen = choose(route, pending.client, self._rng)
            if chosen is not None:
                queue.move(pending, chosen.name)

    def _serve(self, name: str) -> None:
        """Give what slots there are to those whose turn it is."""
        queue, now = self._queues[name], asyncio.get_running_loop().time()
        route = self._routes.table().endpoints.get(name)
        if route is None:
            return
        for pending in queue.again():
            if not self._grant(queue, pending, route, now) and self._full_for_all(
                pending, route, now
            ):
                break
        for revision in queue.revisions():
            while pending_next := queue.next(revision):
                if not self._grant(queue, pending_next, route, now):
                    break

    def _grant(
        self, queue: RequestQueue, pending: Pending, route: EndpointRoute, now: float
    ) -> bool:
        """Give `pending` a slot, if there is one; one who has left meanwhile needs none."""
        slot = None if pending.slot.done() else self._offer(pending, route, now)
        if slot is None and not pending.slot.done():
            return False
        queue.serve(pending)
        if slot is not None:
            pending.slot.set_result(slot)
        return True

    def _full_for_all(self, pending: Pending, route: EndpointRoute, now: float) -> bool:
        """Whether it is not the replica that `pending` avoids that has a free slot."""
        avoided = (r for r in route.revisions if pending.avoid in r.urls)
        return not any(
            self._ejections.admits(pending.avoid, now)
            and self._in_use.get(pending.avoid, 0) < _limit(route, revision)
            for revision in avoided
        )

    def _offer(self, pending: Pending, route: EndpointRoute, now: float) -> Slot | None:
        """Return a slot for `pending`, or `None` while it must wait."""
        candidates = self._allowed(pending.revision, route)
        for revision in candidates:
            slot = self._slot(route, revision, pending, now)
            if slot is not None:
                return slot
        if now - pending.since <= self._limits.absent_seconds or self._any_usable(candidates, now):
            return None
        for revision in route.revisions:  # those asked have had no replica for long
            if revision.share > 0 and revision not in candidates:
                slot = self._slot(route, revision, pending, now)
                if slot is not None:
                    return slot
        return None

    def _allowed(self, revision: str, route: EndpointRoute) -> list[RevisionRoute]:
        first = [r for r in _named(route, revision) if r.share > 0]
        return [*first, *_named(route, route.overflow)]

    def _refuse_late(self, name: str, queue: RequestQueue, now: float) -> None:
        """Refuse those that have waited for too long."""
        route = self._routes.table().endpoints.get(name)
        for revision in queue.revisions():
            for pending in queue.oldest_first(revision):
                if not self._refuse(queue, pending, route, now):
                    break  # who came later has waited less
        for pending in queue.again():
            self._refuse(queue, pending, route, now)

    def _refuse(
        self, queue: RequestQueue, pending: Pending, route: EndpointRoute | None, now: float
    ) -> bool:
        error = _no_such_endpoint() if route is None else self._late(pending, route, now)
        if error is not None:
            queue.remove(pending)
            if not pending.slot.done():
                pending.slot.set_exception(error)
        return error is not None

    def _late(self, pending: Pending, route: EndpointRoute, now: float) -> ApiError | None:
        waited = now - pending.since
        taking = [r for r in route.revisions if r.share > 0]
        if self._any_usable([*self._allowed(pending.revision, route), *taking], now):
            long = f"model {route.name!r} had no room for {waited:.0f} s"
            return _full(long) if waited > self._limits.queue_seconds else None
        patience = self._limits.queue_seconds if route.rests else self._limits.gone_seconds
        if waited <= patience:
            return None
        message = f"model {route.name!r} has no replica at the moment"
        return ApiError(503, message, code="no_replica", retry_after=2)

    def _any_usable(self, revisions: Iterable[RevisionRoute], now: float) -> bool:
        return any(self._ejections.admits(url, now) for r in revisions for url in r.urls)

    def _slot(
        self, route: EndpointRoute, revision: RevisionRoute, pending: Pending, now: float
    ) -> Slot | None:
        """Return a slot at the replica of `revision` with the fewest taken, in turn."""
        urls, least = revision.urls, _limit(route, revision)
        best = self._kept(route, revision, pending, now) if pending.client else ""
        if not best and urls:
            self._turn = (self._turn + 1) % len(urls)
            for url in urls[self._turn :] + urls[: self._turn]:
                in_use = self._in_use.get(url, 0)
                if in_use < least and self._ejections.admits(url, now):
                    if url == pending.avoid and len(urls) > 1:
                        continue
                    best, least = url, in_use
                    if not in_use:
                        break
        if not best:
            return None
        size = pending.share.size
        self._in_use[best] = self._in_use.get(best, 0) + size
        tries = self._ejections.trial(best, now) if self._ejections else None
        return Slot(route.name, revision, best, size, tries)

    def _kept(
        self, route: EndpointRoute, revision: RevisionRoute, pending: Pending, now: float
    ) -> str:
        """Return the replica that has answered this client before, unless it has much to do.

        Rendezvous hashing with a bound of the load: as few clients as must move when replicas
        come and go, and none makes a replica hot. A prompt's cache is where it was.
        """
        urls = revision.urls
        if len(urls) < 2:  # noqa: PLR2004 - nothing to choose
            return ""
        mean = sum(self._in_use.get(url, 0) for url in urls) / len(urls)
        most = min(_limit(route, revision), 1 + int(_STICKY_LOAD * mean))
        mark, best, highest = _mark(pending.client), "", -1
        for url in urls:
            score = (mark ^ self._mark_of(url)) * 0x9E3779B97F4A7C15 & _64_BITS
            score ^= score >> 29
            usable = self._in_use.get(url, 0) < most and url != pending.avoid
            if score > highest and usable and self._ejections.admits(url, now):
                best, highest = url, score
        return best

    def _mark_of(self, url: str) -> int:
        mark = self._marks.get(url)
        if mark is None:
            if len(self._marks) > 4096:  # noqa: PLR2004 - those of replicas that are gone
                self._marks.clear()
            mark = self._marks[url] = _mark(url)
        return mark


def _mark(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big")


def _limit(route: EndpointRoute, revision: RevisionRoute) -> int:
    return revision.concurrency or route.concurrency


def _named(route: EndpointRoute, name: str) -> list[RevisionRoute]:
    return [revision for revision in route.revisions if revision.name == name]


def _full(why: str) -> ApiError:
    return ApiError(429, f"{why}; try again", code="queue_full", retry_after=1)


def _no_such_endpoint() -> ApiError:
    return ApiError(404, "the endpoint is gone", code="model_not_found")
