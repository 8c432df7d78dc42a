"""The gateway's table, read from the store of endpoints again and again.

Whatever goes wrong with a reading, the thread goes on: the last table stands, its age says so, and
the trouble is logged once.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol
from urllib.parse import quote

from orchestrator.core.endpoints.api_keys import ApiKey, KeyRules, follows
from orchestrator.core.endpoints.life import EndpointLife, Revision
from orchestrator.core.errors import OrchestratorError, ServingError
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.error_boundary import outcome, reason
from orchestrator.ports import Clock, EndpointLog, EndpointStatus, KeyStore
from orchestrator.serving.gateway.routes import EndpointRoute, Far, RevisionRoute, Table

SECONDS_BETWEEN_READS = 0.2
SECONDS_BETWEEN_NOTES = 1.0
Replicas = Mapping[tuple[str, int], tuple[str, ...]]
logger = logging.getLogger(__name__)


class RouteSource(EndpointLog, EndpointStatus, KeyStore, Protocol):
    """What routes are made of: endpoints, their replicas, and who may ask them."""


class StoreRoutes:
    """Satisfies `Routes`: a thread reads the store every moment.

    While that is away, the last table stands. `key_of` returns the API key of a server outside;
    while it can't, the last key stands.
    """

    def __init__(self, store: RouteSource, key_of: Callable[[Outside], str], clock: Clock) -> None:
        """Read the store once, and go on in a thread."""
        self._store = store
        self._key_of = key_of
        self._outside_keys: dict[Outside, str] = {}
        self._no_key: dict[Outside, str] = {}
        self._clock = clock
        self._asking: Counter[str] = Counter()
        self._last_requests: dict[str, float] = {}
        self._noted: dict[str, float] = {}
        self._rules = KeyRules()
        self._keys: Mapping[str, ApiKey] = {}
        self._table = self._read()
        self._read_at = clock.monotonic()
        self._trouble = ""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name="routes", daemon=True)
        self._thread.start()

    def table(self) -> Table:
        """Return the newest table."""
        return self._table

    def age(self) -> float:
        """Return for how many seconds the store has not been read."""
        return self._clock.monotonic() - self._read_at

    @contextmanager
    def asking(self, endpoint: str) -> Iterator[None]:
        """Have it noted, for a block, that somebody asks; a moment later, by the thread."""
        self._asking[endpoint] += 1
        self._last_requests[endpoint] = self._clock.monotonic()
        try:
            yield
        finally:
            self._asking[endpoint] -= 1
            self._last_requests[endpoint] = self._clock.monotonic()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._closed.wait(SECONDS_BETWEEN_READS):
            self._tell(outcome(self._pass, but=()).error)

    def _pass(self) -> None:
        self._table = self._read()
        self._read_at = self._clock.monotonic()
        self._note()

    def _tell(self, error: Exception | None) -> None:
        """Log what keeps the table from being read, unless it is what was logged last."""
        trouble = "" if error is None else f"{type(error).__name__}: {reason(error)}"
        if error is not None and trouble != self._trouble:
            foreseen = isinstance(error, OrchestratorError)
            logger.warning("the last routes stand: %s", trouble, exc_info=not foreseen and error)
        self._trouble = trouble

    def _note(self) -> None:
        now = self._clock.monotonic()
        for endpoint, last in list(self._last_requests.items()):
            at = now if self._asking[endpoint] else last
            noted = self._noted.get(endpoint, -math.inf)
            if at > noted and now - noted >= SECONDS_BETWEEN_NOTES:
                self._store.note_asked(endpoint)
                self._noted[endpoint] = at

    def _read(self) -> Table:
        self._read_keys()
        replicas = self._store.replicas()
        lives = self._store.endpoints().values()
        far = any(revision.outside for life in lives for revision in life.taking)
        troubles = self._store.troubles() if far else {}
        routes = (_around(self._route(life, replicas), troubles) for life in lives)
        return Table(
            endpoints={route.name: route for route in routes if route.revisions},
            keys=self._keys,
            required=self._rules.required,
        )

    def _read_keys(self) -> None:
        """Read all keys anew where any has changed."""
        rules = self._store.key_rules()
        if not rules.stamp or rules.stamp != self._rules.stamp:
            known = self._store.api_keys()
            self._keys = {digest: key for key in known for digest in key.digests}
        self._rules = replace(rules, required=follows(self._rules.required, rules.required))

    def _route(self, life: EndpointLife, replicas: Replicas) -> EndpointRoute:
        leading = life.leading
        of = leading.deployment.endpoint if leading and leading.deployment else None
        limits = {}
        if of is not None:
            limits = {"sticky": of.sticky, "concurrency": of.requests_at_once, "queue": of.queue}
            limits["rests"] = of.idle is not None
        return EndpointRoute(
            name=life.name,
            revisions=tuple(self._revision(life, r, replicas) for r in life.taking),
            shadow="" if life.shadow is None else f"r{life.shadow}",
            overflow="" if life.overflow is None else f"r{life.overflow}",
            created=0 if leading is None else int(leading.updated or leading.since),
            **limits,  # type: ignore[arg-type]
        )

    def _outside_key(self, server: Outside) -> str:
        """Return the key as it is now: a file is replaced when a key is changed."""
        trouble = ""
        try:
            self._outside_keys[server] = self._key_of(server)
        except ServingError as error:
            trouble = str(error)
        if trouble and trouble != self._no_key.get(server):
            logger.warning("the last key of %s stands: %s", server.address, trouble)
        self._no_key[server] = trouble
        return self._outside_keys.get(server, "")

    def _revision(
        self,
        life: EndpointLife,
        revision: Revision,
        replicas: Replicas,
    ) -> RevisionRoute:
        share = life.shares.get(revision.number, 0)
        far = revision.outside
        if far is not None:
            return RevisionRoute(
                name=revision.name,
                pool="outside",
                share=share,
                urls=(far.base,),
                model=far.model,
                far=Far(
                    headers=far.sent(self._outside_key(far)),
                    query=far.query,
                    ca_file=far.ca_file,
                    proxy=far.proxy,
                ),
            )
        assert revision.deployment is not None, "ours or outside"  # noqa: S101
        return RevisionRoute(
            name=revision.name,
            pool=revision.pool,
            share=share,
            urls=replicas.get((life.name, revision.number), ()),
            token=revision.deployment.token,
            server=revision.deployment.endpoint.server is not None,
            devices=revision.deployment.needs.devices,
            hourly=(revision.deployment.pool.price or 0.0) * revision.deployment.needs.devices,
            version=quote(revision.deployment.weights),
        )


def _around(route: EndpointRoute, troubles: Mapping[tuple[str, int], str]) -> EndpointRoute:
    """Return a route that leaves out troubled servers outside, while others can answer.

    Where they can't, those are asked all the same: they may be well again by now.
    """
    wrong = {
        f"r{number}" for (name, number), why in troubles.items() if name == route.name and why
    }
    bad = {r.name for r in route.revisions if r.outside and r.name in wrong}
    if not bad or not any(r.share and r.urls for r in route.revisions if r.name not in bad):
        return route
    left = (replace(r, share=0, urls=()) if r.name in bad else r for r in route.revisions)
    return replace(route, revisions=tuple(left))
