"""Endpoints: their events, numbered as those of runs; replicas, as last said."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.exc import IntegrityError

from orchestrator.adapters.database import codec
from orchestrator.adapters.database.dialects import seconds_now
from orchestrator.adapters.database.schema import (
    asked,
    endpoint_events,
    reconcilers,
    replicas,
    troubles,
)
from orchestrator.adapters.database.seal import Seal, no_secret
from orchestrator.adapters.database.transactions import Transactions
from orchestrator.core.endpoints.life import (
    ENDPOINT_EVENTS,
    EndpointEvent,
    EndpointLife,
    RevisionAdded,
    follow,
)
from orchestrator.core.errors import ConflictError

logger = logging.getLogger(__name__)


class SqlEndpoints(Transactions):
    """The ports `EndpointLog`, `EndpointStatus` and `EndpointLeases`."""

    def __init__(
        self,
        place: str | Path,
        patience: float | None = None,
        *,
        secret: Callable[[], bytes] = no_secret,
    ) -> None:
        """Open the database at `place`, making tables that it lacks.

        `secret` is what tokens of replicas are sealed with; it is asked for when one is.
        """
        super().__init__(place, patience)
        self._lives: dict[str, EndpointLife] = {}
        self._seal = Seal(secret)
        self._foreign: set[tuple[str, int]] = set()

    def endpoint(self, name: str) -> EndpointLife:
        """Return the endpoint as its events tell; one without events has no revision."""
        return self._up_to_date(name, None)

    def endpoints(self) -> Mapping[str, EndpointLife]:
        """Return all endpoints that have events, by name."""
        newest = select(endpoint_events.c.endpoint, func.max(endpoint_events.c.seq))
        with self._reading() as connection:
            rows = connection.execute(newest.group_by(endpoint_events.c.endpoint)).all()
        return {name: self._up_to_date(name, last) for name, last in rows}

    def _up_to_date(self, name: str, last: int | None) -> EndpointLife:
        """Fold what came since the last look: the gateway looks many times a second."""
        life = self._lives.get(name, EndpointLife(name=name))
        if life.seq == last:
            return life
        later = (endpoint_events.c.endpoint == name) & (endpoint_events.c.seq > life.seq)
        query = select(endpoint_events).where(later).order_by(endpoint_events.c.seq)
        with self._reading() as connection:
            rows = connection.execute(query).all()
        for row in rows:
            life = follow(life, self._event(row), row.at)
        self._lives[name] = life
        for revision in life.live:
            if (name, revision.number) in self._foreign:
                self._foreign.discard((name, revision.number))
                logger.warning(_FOREIGN, name, revision.number)
        return life

    def follow(self, life: EndpointLife, events: Sequence[EndpointEvent], at: float) -> None:
        """Commit what happens to the endpoint after `life`, all or nothing.

        Raises:
            TransitionError: An event does not fit.
            ConflictError: Somebody else has changed the endpoint since `life`.
        """
        rows = []
        for event in events:
            life = follow(life, event, at)
            row = {"endpoint": life.name, "seq": life.seq, "at": at}
            body = codec.dump(self._sealed(event))
            rows.append({**row, "kind": type(event).__name__, "body": body})
        with self._writing() as connection:
            try:
                connection.execute(endpoint_events.insert(), rows)
            except IntegrityError as error:
                message = f"endpoint {life.name!r} was changed by somebody else; look again"
                raise ConflictError(message) from error

    def hold(self, cluster: str, holder: str, seconds: float) -> bool:
        """Take or renew the lease on the endpoints of a cluster; return whether `holder` has it.

        It is judged by the database's clock. One from the future is that of a clock that was set.
        """
        now = seconds_now(self._reader)
        taken = self._insert(reconcilers).values(cluster=cluster, holder=holder, at=now)
        free = func.abs(now - reconcilers.c.at) > seconds
        taken = taken.on_conflict_do_update(
            index_elements=["cluster"],
            set_={"holder": holder, "at": now},
            where=(reconcilers.c.holder == holder) | free,
        )
        with self._writing() as connection:
            return bool(connection.scalars(taken.returning(reconcilers.c.holder)).all())

    def note_replicas(self, endpoint: str, revision: int, urls: Sequence[str]) -> None:
        """Make `urls` the replicas of a revision, instead of before; none is none."""
        if urls:
            text = json.dumps(sorted(urls))
            self._note(replicas, endpoint=endpoint, revision=revision, urls=text)
            return
        mine = (replicas.c.endpoint == endpoint) & (replicas.c.revision == revision)
        with self._writing() as connection:
            connection.execute(delete(replicas).where(mine))

    def replicas(self) -> Mapping[tuple[str, int], tuple[str, ...]]:
        """Return the base URLs of the replicas that answer, sorted, by endpoint and revision."""
        with self._reading() as connection:
            rows = connection.execute(select(replicas)).all()
        return {(row.endpoint, row.revision): tuple(sorted(json.loads(row.urls))) for row in rows}

    def note_trouble(self, endpoint: str, revision: int, reason: str) -> None:
        """Note why a revision has no replica, instead of before; an empty reason is none."""
        self._note(troubles, endpoint=endpoint, revision=revision, reason=reason)

    def troubles(self) -> Mapping[tuple[str, int], str]:
        """Return why revisions have no replica, by endpoint and revision."""
        with self._reading() as connection:
            rows = connection.execute(select(troubles).where(troubles.c.reason != "")).all()
        return {(row.endpoint, row.revision): row.reason for row in rows}

    def note_asked(self, endpoint: str) -> None:
        """Note that somebody asks an endpoint, by the clock of the database."""
        self._note(asked, endpoint=endpoint, at=seconds_now(self._reader))

    def idle_seconds(self) -> Mapping[str, float]:
        """Return for how many seconds nobody has asked, by endpoint.

        One from the future is that of a clock that was set.
        """
        age = func.abs(seconds_now(self._reader) - asked.c.at)
        with self._reading() as connection:
            rows = connection.execute(select(asked.c.endpoint, age.label("age"))).all()
        return {row.endpoint: float(row.age) for row in rows}

    def _sealed(self, event: EndpointEvent) -> EndpointEvent:
        if not isinstance(event, RevisionAdded) or event.deployment is None:
            return event
        token = self._seal.close(event.deployment.token)
        return replace(event, deployment=replace(event.deployment, token=token))

    def _event(self, row: Any) -> EndpointEvent:  # noqa: ANN401 - a row of SQLAlchemy
        where = f"event {row.seq!r} of endpoint {row.endpoint!r}"
        event = codec.load_kind(ENDPOINT_EVENTS, row.kind, row.body, where)
        if not isinstance(event, RevisionAdded) or event.deployment is None:
            return event
        token, ours = self._seal.open(event.deployment.token)
        if not ours:
            self._foreign.add((row.endpoint, event.number))
        return replace(event, deployment=replace(event.deployment, token=token))


_FOREIGN = (
    "the token of %s.r%s was sealed by another secret, so its replicas refuse requests from here;"
    " set ORCHESTRATOR_SECRET alike on all hosts that share the database, or deploy it again"
)
