"""The revisions of endpoints: committed to the store, deployed and removed on the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from orchestrator.core.endpoints.life import (
    WHOLE,
    Deployment,
    EndpointEvent,
    EndpointLife,
    RevisionRetired,
    RevisionState,
    SharesMoved,
    TrafficEvent,
)
from orchestrator.core.endpoints.promotion import shares
from orchestrator.core.errors import ConflictError, ServingError, StoreError, TransitionError
from orchestrator.ports import Clock, EndpointLeases, EndpointLog, EndpointStatus, Replicas

TRIES = 5
LEAST_PAUSE, TRIES_TO_INSIST = 0.5, 7  # seconds, doubled each time
T = TypeVar("T")


class EndpointStore(EndpointLog, EndpointStatus, Protocol):
    """The events of endpoints, and which replicas they have."""


class LeasedEndpoints(EndpointStore, EndpointLeases, Protocol):
    """The same, and who looks after them."""


class Revisions:
    """What is known of endpoints, and the replicas behind them."""

    def __init__(self, store: EndpointStore, replicas: Replicas, clock: Clock) -> None:
        self._store = store
        self._replicas = replicas
        self._clock = clock

    def life(self, name: str) -> EndpointLife:
        """Return the endpoint as it stands."""
        return self._store.endpoint(name)

    def commit(self, life: EndpointLife, *events: EndpointEvent) -> None:
        """Commit what happens to the endpoint after `life`, or after what others did meanwhile.

        Raises:
            ConflictError: Others have moved the traffic, or what they did leaves no place for
                this: look again, and decide anew.
        """
        decided = life
        moving = any(isinstance(event, TrafficEvent) for event in events)
        for left in reversed(range(TRIES)):
            try:
                return self._store.follow(life, events, self._store.now())
            except ConflictError:
                life = self.life(decided.name)
                if not left or (moving and life.moves != decided.moves):
                    raise
            except TransitionError as error:
                if life is decided:
                    raise
                raise ConflictError(f"{error}; somebody else was first") from error
        return None

    def note(self, deployment: Deployment) -> None:
        """Note the replicas of a revision, so that requests find them at once."""
        status = self._replicas.live().get(deployment.application)
        urls = status.urls if status else ()
        self._store.note_replicas(deployment.endpoint.name, deployment.revision, urls)

    def here(self, deployment: Deployment) -> bool:
        """Return whether a revision was deployed on this cluster, as far as that was stored.

        Raises:
            ServingError: The cluster can't be reached.
        """
        return deployment.cluster in {"", self._replicas.cluster()}

    def unfinished(self, key: str) -> Iterator[Deployment]:
        """Yield the revisions that attempt `key` deployed, and that have not taken over."""
        for life in self._store.endpoints().values():
            for revision in life.live:
                deployment = revision.deployment
                ours = deployment is not None and deployment.key == key
                if deployment is not None and ours and life.shares.get(revision.number) != WHOLE:
                    yield deployment

    def retire(self, deployment: Deployment, reason: str) -> None:
        """Take a revision out, and remove its replicas where they are on this cluster.

        Those on another one are removed by the reconciler of that.
        """
        name, number = deployment.endpoint.name, deployment.revision
        _until_nobody_else(partial(self._take_out, name, number, reason))
        self._remove(deployment)

    def _remove(self, deployment: Deployment) -> None:
        self._store.note_replicas(deployment.endpoint.name, deployment.revision, ())
        with suppress(ServingError):  # what is not there needs no removing
            if self.here(deployment):
                self._replicas.delete(deployment.application)

    def _take_out(self, name: str, number: int, reason: str, *, unused: bool = False) -> None:
        life = self.life(name)
        revision = life.revisions.get(number)
        if unused and life.shares.get(number):
            raise ConflictError(f"{name}.r{number} takes traffic: somebody has moved it there")
        if revision is not None and revision.state is not RevisionState.RETIRED:
            self._store.follow(life, [RevisionRetired(number, reason)], self._store.now())

    def retire_unused(self, name: str, number: int, reason: str) -> None:
        """Retire revision `number`, wherever it runs.

        Raises:
            ConflictError: It takes traffic by now, and stays.
        """
        _until_nobody_else(partial(self._take_out, name, number, reason, unused=True))
        revision = self.life(name).revisions[number]
        if revision.deployment is not None:
            self._remove(revision.deployment)

    def take_back(self, deployment: Deployment, old: Mapping[int, int], reason: str) -> bool:
        """Give its traffic to who of `old` is there, else to the others; retire `deployment`.

        Return whether it is retired: one that has taken over from `old` stays while nobody else
        is ready.
        """
        _until_nobody_else(partial(self._move_back, deployment, old, reason))
        if old and self.life(deployment.endpoint.name).shares.get(deployment.revision):
            return False
        self.retire(deployment, reason)
        return True

    def insist(self, act: Callable[[], T]) -> T:
        """Act, again and again while the store is away: nobody else will.

        Raises:
            StoreError: It is away for longer than half a minute.
        """
        pause = LEAST_PAUSE
        for _ in range(TRIES_TO_INSIST - 1):
            try:
                return act()
            except StoreError:
                self._clock.sleep(pause)
                pause *= 2.0
        return act()

    def _move_back(self, deployment: Deployment, old: Mapping[int, int], reason: str) -> None:
        life, number = self.life(deployment.endpoint.name), deployment.revision
        if not life.shares.get(number):
            return
        earlier = {life.before.number: WHOLE} if life.before else {}
        for wanted in (old, life.shares, earlier):
            ready = {
                n: share
                for n, share in wanted.items()
                if n != number and share and life.revisions[n].state is RevisionState.READY
            }
            if ready:
                back = {n: share for n, share in shares(0, number, ready).items() if share}
                self.commit(life, SharesMoved(back, f"back: {reason}"))
                return


def _until_nobody_else(act: Callable[[], None]) -> None:
    """Act; again while somebody else changes the endpoint at the same moment."""
    for _ in range(TRIES - 1):
        with suppress(ConflictError):
            return act()
    return act()


def end(store: EndpointStore, life: EndpointLife, reason: str, at: float) -> None:
    """Retire all live revisions: first those without traffic, then the one with all of it.

    Their replicas are no concern of this: the reconciler removes them, where the cluster is there.

    Raises:
        ConflictError: Somebody else changes the endpoint again and again.
    """
    name = life.name
    _until_nobody_else(lambda: _end(store, store.endpoint(name), reason, at))


def _end(store: EndpointStore, life: EndpointLife, reason: str, at: float) -> None:
    if len(life.shares) > 1 and life.leading is not None:
        store.follow(life, [SharesMoved({life.leading.number: WHOLE}, reason)], at)
        life = store.endpoint(life.name)
    order = sorted(life.live, key=lambda revision: revision.number in life.shares)
    if order:
        store.follow(life, [RevisionRetired(revision.number, reason) for revision in order], at)
    for revision in order:
        store.note_replicas(life.name, revision.number, ())
