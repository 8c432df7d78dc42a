"""Keep endpoints as the store says: replicas noted, lost ones deployed anew, retired ones removed.

Those of an endpoint that nobody has asked for long are removed too, until somebody asks.

It looks every moment and remembers nothing that the store doesn't: it may be killed and started
again at any time. A cluster that does not answer changes nothing: replicas may live on without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from orchestrator.core.endpoints import (
    Deployment,
    EndpointLife,
    Revision,
    RevisionState,
)
from orchestrator.messages import Failed, RevisionStatus, Succeeded
from orchestrator.ports import Clock, EndpointStore, Replicas

Tell = Callable[[str], None]
Move = Callable[[str, str], None]
SECONDS_OF_A_LOSS = 20.0  # without a replica, until another pool takes over
SECONDS_BETWEEN_MOVES = 300.0
SECONDS_OF_REST = 60.0  # after the last endpoint: what failed may be tried again
SECONDS_TO_DEPLOY_ANEW = 5.0  # a revision that was added may not be deployed yet


class Reconciler:
    """Looks after all endpoints of a store; `tell` takes a line about what it did.

    `move` is called with an endpoint and a pool to which that is to go: its own is lost.
    """

    def __init__(
        self, store: EndpointStore, replicas: Replicas, clock: Clock, tell: Tell, move: Move
    ) -> None:
        self._store = store
        self._replicas = replicas
        self._clock = clock
        self._tell = tell
        self._move = move
        self._silent: dict[str, float] = {}
        self._moved: dict[str, float] = {}
        self._restoring: dict[str, Deployment] = {}
        self._missing: dict[str, float] = {}
        self._kept: float | None = None

    def reconcile(self) -> bool:
        """Look once; return whether there is any endpoint to keep, or was a moment ago.

        Raises:
            ServingError: The cluster does not answer.
            StoreError: The database does not answer.
        """
        lives = self._store.endpoints()
        live = self._replicas.live()
        noted = self._store.replicas()
        resting = self._resting(lives)
        awake = {name: life for name, life in lives.items() if name not in resting}
        wanted = {r.deployment.application: r for r in _ours(awake) if r.deployment}
        for name, revision in wanted.items():
            self._keep(name, revision, live.get(name), noted)
        for name in (live.keys() & _retired(lives)) - wanted.keys():  # never somebody else's
            self._tell(f"{name} is retired: removed")
            self._replicas.delete(name)
        for life in resting.values():
            self._scale_to_zero(life, live, noted)
        self._follow()
        for life in awake.values():
            self._watch(life, live)
        now = self._clock.monotonic()
        if any(life.live for life in lives.values()):
            self._kept = now
        return self._kept is not None and now - self._kept < SECONDS_OF_REST

    def _keep(
        self,
        name: str,
        revision: Revision,
        status: RevisionStatus | None,
        noted: Mapping[tuple[str, int], tuple[str, ...]],
    ) -> None:
        made = revision.deployment
        assert made is not None, "only those of ours are kept"  # noqa: S101
        place = (made.endpoint.name, made.revision)
        urls = status.urls if status else ()
        if urls != noted.get(place, ()):
            self._store.note_replicas(*place, urls)
            self._tell(f"{name} has {len(urls)} replicas")
        if status is not None or name in self._restoring:
            self._missing.pop(name, None)
        elif revision.state is RevisionState.READY:
            self._restore(name, made)

    def _resting(self, lives: Mapping[str, EndpointLife]) -> dict[str, EndpointLife]:
        asked, now = self._store.asked(), self._clock.now()
        return {
            name: life
            for name, life in lives.items()
            if _rests(life, asked.get(name, 0.0), now) and not self._is_starting(life)
        }

    def _is_starting(self, life: EndpointLife) -> bool:
        """Whether it is being deployed at this moment; that is not broken off."""
        return any(r.deployment and r.deployment.application in self._restoring for r in life.live)

    def _scale_to_zero(
        self,
        life: EndpointLife,
        live: Mapping[str, RevisionStatus],
        noted: Mapping[tuple[str, int], tuple[str, ...]],
    ) -> None:
        """Remove the replicas of an endpoint that rests; nobody is sent to them any more."""
        made = life.live[0].deployment
        assert made is not None, "only those of ours rest"  # noqa: S101
        name, place = made.application, (life.name, made.revision)
        self._silent.pop(life.name, None)
        self._missing[name] = -math.inf  # deployed at once, when asked
        if place in noted:
            self._store.note_replicas(*place, ())
        if name in live:
            self._tell(f"{name} rests: nobody has asked for {made.endpoint.idle:g} s")
            self._replicas.delete(name)

    def _restore(self, name: str, made: Deployment) -> None:
        """Deploy a revision anew that has been missing for a while."""
        since = self._missing.setdefault(name, self._clock.monotonic())
        if self._clock.monotonic() - since >= SECONDS_TO_DEPLOY_ANEW:
            del self._missing[name]
            self._tell(f"{name} is not on the cluster: deployed anew")
            self._restoring[name] = made
            self._replicas.start(made)

    def _watch(self, life: EndpointLife, live: Mapping[str, RevisionStatus]) -> None:
        """Move an endpoint to its next pool when the revision that leads has lost its own."""
        made = life.leading.deployment if life.leading else None
        status = live.get(made.application) if made else None
        if made is None or (status and status.urls):
            self._silent.pop(life.name, None)
            return
        now = self._clock.monotonic()
        silent = now - self._silent.setdefault(life.name, now)
        rested = now - self._moved.get(life.name, -math.inf) >= SECONDS_BETWEEN_MOVES
        pool = _refuge(life, made)
        if silent >= SECONDS_OF_A_LOSS and rested and pool:
            self._moved[life.name] = now
            lost = f"{made.application} has had no replica for {silent:.0f} s"
            self._tell(f"{lost}: {life.name} goes to pool {pool}")
            self._move(life.name, pool)

    def _follow(self) -> None:
        """Go on with what is being deployed anew."""
        for name, made in list(self._restoring.items()):
            for message in self._replicas.poll(made.key):
                if isinstance(message, Succeeded | Failed):
                    del self._restoring[name]
                if isinstance(message, Failed):
                    self._tell(f"{name} can't be deployed: {message.failure.evidence}")


def _refuge(life: EndpointLife, made: Deployment) -> str | None:
    """Return the pool to go to: a fallback, or the one that the endpoint was switched from."""
    earlier = (one.pool for one in reversed([*life.revisions.values()]) if one.deployment)
    pools = (*made.fallbacks, *earlier)
    return next((pool for pool in pools if pool != made.pool.name), None)


def _retired(lives: Mapping[str, EndpointLife]) -> set[str]:
    revisions = (revision for life in lives.values() for revision in life.revisions.values())
    retired = (r for r in revisions if r.state is RevisionState.RETIRED)
    return {revision.deployment.application for revision in retired if revision.deployment}


def _ours(lives: Mapping[str, EndpointLife]) -> list[Revision]:
    return [revision for life in lives.values() for revision in life.live if revision.deployment]


def _rests(life: EndpointLife, asked: float, now: float) -> bool:
    """Return whether nobody has asked for so long that the replicas are to end.

    `asked` is when somebody last did, `now` the time, in seconds since the epoch. While there is
    more than one revision the traffic is on its way to another, and none of them rests.
    """
    made = life.leading.deployment if life.leading else None
    if made is None or made.endpoint.idle is None or len(life.live) > 1:
        return False
    return now - max(asked, life.moves[-1].at) >= made.endpoint.idle
