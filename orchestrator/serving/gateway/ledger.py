"""The gateway's ledger: what each key uses, added to the database every moment.

Answers only add to sums in memory. A thread writes these to the database, where all gateways'
sums meet, and reads what others have let in and what each key has spent. While the database is
away the sums wait; a gateway that is killed loses what a moment was noted in.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Mapping
from typing import Protocol

from orchestrator.core.endpoints.metering import Occupancy, Usage, day_of, month_of
from orchestrator.core.errors import OrchestratorError
from orchestrator.error_boundary import outcome
from orchestrator.ports import Clock, UsageStore
from orchestrator.serving.gateway.charging import Estimate
from orchestrator.serving.gateway.gateway_metrics import Tally
from orchestrator.serving.gateway.routes import EndpointRoute, RevisionRoute, Routes

SECONDS_BETWEEN_WRITES = 1.0
SECONDS_BETWEEN_IDLE_WRITES = 30.0  # where nothing but what is held is to be noted
HOUR = 3600.0
logger = logging.getLogger(__name__)


class Ledger(Protocol):
    """Where the gateway notes what is used, and asks what was."""

    def add(self, key: str, route: EndpointRoute, tally: Tally, used: Estimate) -> None:
        """Note an answer to the key of that name."""
        ...

    def spent(self, key: str) -> float:
        """Return what a key has spent this month, in US dollars."""
        ...

    def elsewhere(self, key: str) -> tuple[int, int]:
        """Return requests and tokens that other gateways let in since the last call."""
        ...


class NoLedger:
    """Satisfies `Ledger` where nothing is kept."""

    def add(self, key: str, route: EndpointRoute, tally: Tally, used: Estimate) -> None:
        """Note nothing."""

    def spent(self, key: str) -> float:  # noqa: ARG002 - as the protocol has it
        """Return nothing."""
        return 0.0

    def elsewhere(self, key: str) -> tuple[int, int]:  # noqa: ARG002 - as above
        """Return nothing."""
        return 0, 0


class StoreLedger:
    """Satisfies `Ledger`: sums, which `write` adds to the store, by hand or by a thread."""

    def __init__(self, store: UsageStore, routes: Routes, clock: Clock, gateway: str) -> None:
        """Begin with what the store has; `gateway` is a name that no other gateway has."""
        self._store = store
        self._routes = routes
        self._clock = clock
        self._gateway = gateway
        self._lock = threading.Lock()
        self._sums: dict[tuple[str, ...], Usage] = {}
        self._occupied: dict[tuple[str, ...], Occupancy] = {}
        self._seen = self._written = clock.monotonic()
        self._spent: Mapping[str, float] = store.spent(month_of(clock.now()))
        self._counted = dict(self._others())
        self._let_in: dict[str, tuple[int, int]] = {}
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> StoreLedger:
        """Have a thread write every moment."""
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        self._thread.start()
        return self

    def close(self) -> None:
        """End the thread, and write what is left."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join()
        self._written = -math.inf
        self._try_to_write(quiet=False)

    def add(self, key: str, route: EndpointRoute, tally: Tally, used: Estimate) -> None:
        """Note an answer to the key of that name."""
        revision = tally.revision
        if revision is None:
            return
        seconds = max(0.0, tally.last - tally.sent) * tally.size
        limit = revision.concurrency or route.concurrency
        usage = Usage(
            day=day_of(self._clock.now()),
            key=key,
            endpoint=route.name,
            revision=revision.name,
            pool=revision.pool,
            requests=1,
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            seconds=seconds,
            cost=seconds * revision.hourly / HOUR / limit,
        )
        with self._lock:
            self._put(usage)

    def spent(self, key: str) -> float:
        """Return what a key has spent this month, in US dollars; what is not written too."""
        with self._lock:
            own = sum(usage.cost for usage in self._sums.values() if usage.key == key)
        return self._spent.get(key, 0.0) + own

    def elsewhere(self, key: str) -> tuple[int, int]:
        """Return requests and tokens that other gateways let in since the last call."""
        if not self._let_in:
            return 0, 0
        with self._lock:
            return self._let_in.pop(key, (0, 0))

    def write(self) -> None:
        """Add the sums to the store, and read what others have noted.

        Raises:
            StoreError: The store is away; the sums wait.
        """
        self._hold()
        if self._sums or self._seen - self._written >= SECONDS_BETWEEN_IDLE_WRITES:
            self._flush()
        self._spent = self._store.spent(month_of(self._clock.now()))
        self._follow_others()

    def _flush(self) -> None:
        with self._lock:
            sums, self._sums = self._sums, {}
            held, self._occupied = self._occupied, {}
        try:
            if sums or held:
                self._store.add_usage(self._gateway, [*sums.values()], [*held.values()])
        except OrchestratorError:
            with self._lock:
                for usage in sums.values():
                    self._put(usage)
                self._occupied = held
            raise
        self._written = self._seen

    def _put(self, usage: Usage) -> None:
        before = self._sums.get(usage.place)
        self._sums[usage.place] = usage if before is None else before.plus(usage)

    def _hold(self) -> None:
        """Note what all replicas have held since the last time."""
        now = self._clock.monotonic()
        seconds, self._seen = now - self._seen, now
        day = day_of(self._clock.now())
        for name, route in self._routes.table().endpoints.items():
            for revision in route.revisions:
                if revision.devices and revision.urls:
                    self._add_held(day, name, revision, seconds * len(revision.urls))

    def _add_held(self, day: str, endpoint: str, revision: RevisionRoute, seconds: float) -> None:
        place = (day, endpoint, revision.pool)
        before = self._occupied.get(
            place, Occupancy(day=day, endpoint=endpoint, pool=revision.pool)
        )
        self._occupied[place] = Occupancy(
            day=day,
            endpoint=endpoint,
            pool=revision.pool,
            device_seconds=before.device_seconds + seconds * revision.devices,
            cost=before.cost + seconds * revision.hourly / HOUR,
        )

    def _others(self) -> Mapping[str, tuple[int, int]]:
        return self._store.used_elsewhere(self._gateway, month_of(self._clock.now()))

    def _follow_others(self) -> None:
        now = self._others()
        with self._lock:
            for key, (requests, tokens) in now.items():
                before = self._counted.get(key, (0, 0))
                more = (max(0, requests - before[0]), max(0, tokens - before[1]))
                if any(more):
                    waits = self._let_in.get(key, (0, 0))
                    self._let_in[key] = (waits[0] + more[0], waits[1] + more[1])
            self._counted = dict(now)

    def _work(self) -> None:
        quiet = False
        while not self._closed.wait(SECONDS_BETWEEN_WRITES):
            quiet = self._try_to_write(quiet=quiet)

    def _try_to_write(self, *, quiet: bool) -> bool:
        """Write; return whether that failed, which is logged once."""
        error = outcome(self.write, but=()).error
        if error is not None and not quiet:
            logger.warning("usage is kept in memory: %s: %s", type(error).__name__, error)
        return error is not None
