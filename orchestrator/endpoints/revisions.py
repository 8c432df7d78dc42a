"""The revisions of endpoints: committed to the store, deployed and removed on the cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial

from orchestrator.core.endpoints import (
    WHOLE,
    Deployment,
    EndpointEvent,
    EndpointLife,
    RevisionRetired,
    RevisionState,
    TrafficMoved,
)
from orchestrator.core.errors import ConflictError, ServingError, TransitionError
from orchestrator.core.rollout import shares
from orchestrator.ports import Clock, EndpointStore, Replicas

TRIES = 5


class Revisions:
    """What is known of endpoints, and the replicas behind them."""

    def __init__(self, store: EndpointStore, replicas: Replicas, clock: Clock) -> None:
        self._store = store
        self._replicas = replicas
        self._clock = clock

    def life(self, name: str) -> EndpointLife:
        """Return the endpoint as it stands."""
        return self._store.endpoint(name)

    def present(self, name: str) -> EndpointLife:
        """Return the endpoint; revisions whose replicas went with their cluster are retired."""
        _until_nobody_else(partial(self._retire_gone, name))
        return self.life(name)

    def _retire_gone(self, name: str) -> None:
        life = self.life(name)
        there = self._replicas.live()
        gone = [r for r in life.live if r.deployment and r.deployment.application not in there]
        if len(gone) == len(life.live):
            end(self._store, life, "its cluster is gone", self._clock.now())

    def commit(self, life: EndpointLife, *events: EndpointEvent) -> None:
        """Commit what happens to the endpoint after `life`, or after what others did meanwhile.

        Raises:
            ConflictError: Others have moved the traffic, or what they did leaves no place for
                this: look again, and decide anew.
        """
        decided = life
        moving = any(isinstance(event, TrafficMoved) for event in events)
        for left in reversed(range(TRIES)):
            try:
                return self._store.follow(life, events, self._clock.now())
            except ConflictError:
                life = self.life(decided.name)
                if not left or (moving and life.moves != decided.moves):
                    raise
            except TransitionError as error:
                if life is decided:
                    raise
                raise ConflictError(f"{error}; somebody else was first") from error
        return None

    def note(self, made: Deployment) -> None:
        """Note the replicas of a revision, so that requests find them at once."""
        status = self._replicas.live().get(made.application)
        self._store.note_replicas(made.endpoint.name, made.revision, status.urls if status else ())

    def unfinished(self, key: str) -> Iterator[Deployment]:
        """Yield the revisions that attempt `key` deployed, and that do not lead."""
        for life in self._store.endpoints().values():
            for revision in life.live:
                made = revision.deployment
                if made is not None and made.key == key and revision is not life.leading:
                    yield made

    def retire(self, made: Deployment, reason: str) -> None:
        """Take a revision out, and remove its replicas."""
        _until_nobody_else(partial(self._take_out, made.endpoint.name, made.revision, reason))
        self._store.note_replicas(made.endpoint.name, made.revision, ())
        with suppress(ServingError):  # what is not there needs no removing
            self._replicas.delete(made.application)

    def _take_out(self, name: str, number: int, reason: str) -> None:
        life = self.life(name)
        found = life.revisions.get(number)
        if found is not None and found.state is not RevisionState.RETIRED:
            self.commit(life, RevisionRetired(number, reason))

    def retire_number(self, name: str, number: int, reason: str) -> None:
        """Retire revision `number`, wherever it runs."""
        found = self.life(name).revisions[number]
        if found.deployment is not None:
            self.retire(found.deployment, reason)
        else:
            _until_nobody_else(partial(self._take_out, name, number, reason))

    def take_back(self, made: Deployment, old: Mapping[int, int], reason: str) -> None:
        """Give its traffic to `old`, else to the others or to who led before; retire `made`."""
        _until_nobody_else(partial(self._move_back, made, old, reason))
        self.retire(made, reason)

    def _move_back(self, made: Deployment, old: Mapping[int, int], reason: str) -> None:
        life = self.life(made.endpoint.name)
        if life.shares.get(made.revision):
            rest = {n: share for n, share in life.shares.items() if n != made.revision}
            ready = life.before is not None and life.before.state is RevisionState.READY
            earlier = {life.before.number: WHOLE} if life.before and ready else {}
            back = old or (shares(0, made.revision, rest) if rest else earlier)
            if back:
                self.commit(life, TrafficMoved(back, f"back: {reason}"))


def _until_nobody_else(act: Callable[[], None]) -> None:
    """Act; again while somebody else changes the endpoint at the same moment."""
    for _ in range(TRIES - 1):
        with suppress(ConflictError):
            return act()
    return act()


def end(store: EndpointStore, life: EndpointLife, reason: str, at: float) -> None:
    """Retire all live revisions: first those without traffic, then the one with all of it.

    Their replicas are no concern of this: the reconciler removes them, where the cluster is there.
    """
    if len(life.shares) > 1 and life.leading is not None:
        store.follow(life, [TrafficMoved({life.leading.number: WHOLE}, reason)], at)
        life = store.endpoint(life.name)
    order = sorted(life.live, key=lambda revision: revision.number in life.shares)
    if order:
        store.follow(life, [RevisionRetired(one.number, reason) for one in order], at)
    for one in order:
        store.note_replicas(life.name, one.number, ())
