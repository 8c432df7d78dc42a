"""Keep the endpoints of one cluster as the store says.

Replicas that answer are noted, those that are lost or broken are deployed anew, those on nodes
that are not to be used replaced (`replacements.py`), retired ones removed. Those of an endpoint
that nobody has asked for long are removed too, until somebody asks.

Of all reconcilers that see a store one holds the lease on a cluster, and touches only what was
deployed on that; the others look on. It remembers nothing that the store doesn't but since when
something is wrong: it may be killed and started again at any time. A cluster that does not answer
changes nothing: replicas may live on without it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from orchestrator.core.endpoints.life import Deployment, EndpointLife, Revision, RevisionState
from orchestrator.core.errors import ServingError
from orchestrator.core.settings import RECONCILER, ReconcilerSettings
from orchestrator.endpoints.replacements import Replacements
from orchestrator.endpoints.revisions import LeasedEndpoints
from orchestrator.endpoints.updates import Updates
from orchestrator.messages import Failed, PoolState, RevisionStatus, Succeeded
from orchestrator.ports import Clock, Replicas

Tell = Callable[[str], None]
Move = Callable[[str, str], None]
Noted = Mapping[tuple[str, int], tuple[str, ...]]
Live = Mapping[str, RevisionStatus]
SECONDS_OF_A_LEASE = 6.0
SECONDS_BETWEEN_RENEWALS = 2.0
SECONDS_OF_REST = 60.0  # after the last endpoint: what failed may be tried again
SECONDS_TO_DEPLOY_ANEW = 5.0  # a revision that was added may not be deployed yet
LEAST_BACKOFF, MOST_BACKOFF = 5.0, 300.0  # seconds between two deployments of what is broken


@dataclass(slots=True)
class _Trouble:
    """What is wrong with a revision: since when, and when it may be deployed anew."""

    since: float
    due: float
    tries: int = 0


class Reconciler:
    """Looks after the endpoints on the cluster of `replicas`; `tell` takes a line about it.

    `holder` names this process in the lease, `when` says how patient it is. `move` is called with
    an endpoint and a pool to which that is to go: its own is lost. With `adopts` it also keeps
    what the first version has stored, without a cluster: in a database that is one home's alone.
    """

    def __init__(
        self,
        ports: tuple[LeasedEndpoints, Replicas, Clock],
        tell: Tell,
        move: Move,
        *,
        holder: str = "",
        adopts: bool = True,
        when: ReconcilerSettings = RECONCILER,
    ) -> None:
        self._store, self._replicas, self._clock = ports
        self._tell = tell
        self._move = move
        self._holder, self._adopts, self._when = holder, adopts, when
        self._renewed = -math.inf
        self._silent: dict[str, float] = {}
        self._coming: dict[str, dict[str, float]] = {}  # what is to take over, and since when
        self._moved: dict[str, float] = {}
        self._failed_moves: dict[str, int] = {}
        self._restoring: dict[str, Deployment] = {}
        self._troubles: dict[str, _Trouble] = {}
        self._kept: float | None = None
        self._faults: list[ServingError] = []
        self._traffic: dict[str, tuple[int, float]] = {}  # moves so far, and when the last was
        self._cluster = ""
        self._updates = Updates(self._replicas, self._clock, tell)
        self._replacements = Replacements(self._replicas, self._clock, tell)
        self.leads = False

    def reconcile(self) -> bool:
        """Look once; return whether there is any endpoint to keep, or was a moment ago.

        While another holds the lease nothing is done, and who asks may not end what serves. What
        can't be done for one endpoint is left for the next look, and keeps nothing from others.

        Raises:
            ServingError: The cluster does not answer, or not for some endpoint.
            StoreError: The database does not answer.
        """
        cluster = self._replicas.cluster()
        if not self._holds(cluster):
            return True
        self._cluster = cluster
        lives = self._store.endpoints()
        self._faults = []
        self._each(lives, self._replicas.live(), self._store.replicas())
        if self._faults:
            raise self._faults[0]
        now = self._clock.monotonic()
        if self._ours(lives):
            self._kept = now
        return not self.leads or (self._kept is not None and now - self._kept < SECONDS_OF_REST)

    def _each(self, lives: Mapping[str, EndpointLife], live: Live, noted: Noted) -> None:
        idle = self._idle(lives)
        awake = {name: life for name, life in lives.items() if name not in idle}
        desired = {r.deployment.application: r for r in self._ours(awake) if r.deployment}
        for name, revision in desired.items():
            self._apart(partial(self._keep, name, revision, live.get(name), noted))
        retired = self._retired(lives)
        for name in (live.keys() & retired.keys()) - desired.keys():
            self._apart(partial(self._remove, name))
        for place in noted.keys() & retired.values():
            self._apart(partial(self._store.note_replicas, *place, ()))
        for life in idle.values():
            self._apart(partial(self._scale_to_zero, life, live, noted))
        self._apart(self._follow)
        self._apart(partial(self._replacements.follow, desired))
        for life in awake.values():
            self._apart(partial(self._watch, life, live))

    def _apart(self, act: Callable[[], None]) -> None:
        """Act for one endpoint, unless the lease was lost meanwhile: a look may take long."""
        if not self.leads or not self._holds(self._cluster):
            return
        try:
            act()
        except ServingError as error:
            self._faults.append(error)

    def _remove(self, name: str) -> None:
        self._tell(f"{name} is retired: removed")
        self._replicas.delete(name)

    def move_failed(self, endpoint: str) -> None:
        """Take notice that an endpoint could not be moved: the next pool is tried soon."""
        self._failed_moves[endpoint] = self._failed_moves.get(endpoint, 0) + 1
        when = self._when
        again = self._clock.monotonic() - when.between_moves + when.after_failed_move
        self._moved[endpoint] = again

    # --- what is ours --------------------------------------------------------------------------

    def _holds(self, cluster: str) -> bool:
        now = self._clock.monotonic()
        if not self.leads or now - self._renewed >= SECONDS_BETWEEN_RENEWALS:
            before = self.leads
            self.leads = self._store.hold(cluster, self._holder, SECONDS_OF_A_LEASE)
            self._renewed = now
            if before and not self.leads:
                self._tell(f"another reconciler looks after the endpoints of cluster {cluster}")
        return self.leads

    def _is_ours(self, revision: Revision | None) -> bool:
        """Whether a revision was deployed on this cluster."""
        deployment = revision.deployment if revision else None
        if deployment is None:
            return False
        return deployment.cluster == self._cluster or (self._adopts and not deployment.cluster)

    def _ours(self, lives: Mapping[str, EndpointLife]) -> list[Revision]:
        return [r for life in lives.values() for r in life.live if self._is_ours(r)]

    def _retired(self, lives: Mapping[str, EndpointLife]) -> dict[str, tuple[str, int]]:
        """Return the retired revisions of ours by name, never those of somebody else."""
        revisions = (revision for life in lives.values() for revision in life.revisions.values())
        return {
            revision.deployment.application: (revision.deployment.endpoint.name, revision.number)
            for revision in revisions
            if revision.deployment
            and revision.state is RevisionState.RETIRED
            and self._is_ours(revision)
        }

    # --- replicas ------------------------------------------------------------------------------

    def _keep(
        self, name: str, revision: Revision, status: RevisionStatus | None, noted: Noted
    ) -> None:
        deployment = revision.deployment
        assert deployment is not None, "only those of ours are kept"  # noqa: S101
        place = (deployment.endpoint.name, deployment.revision)
        urls = tuple(sorted(status.urls)) if status else ()
        if urls != tuple(sorted(noted.get(place, ()))):
            self._store.note_replicas(*place, urls)
            self._tell(f"{name} has {len(urls)} replicas")
        if revision.state is not RevisionState.READY or name in self._restoring:
            return
        if urls or _rests_at_none(deployment, status):
            self._mend(name, place)
            if urls and status:
                self._updates.catch_up(deployment)
                self._replacements.advance(deployment, status)
            return
        trouble = self._trouble(name)
        broken = status is not None and self._is_broken(deployment, status, trouble)
        if self._clock.monotonic() < trouble.due:
            return
        if broken:
            self._tell(f"{name} is broken: removed, and deployed anew")
            self._store.note_trouble(*place, "its deployment is broken")
            self._replicas.delete(name)
        elif status is None:
            self._restore(name, deployment, trouble)

    def _trouble(self, name: str) -> _Trouble:
        now = self._clock.monotonic()
        return self._troubles.setdefault(name, _Trouble(now, now + SECONDS_TO_DEPLOY_ANEW))

    def _mend(self, name: str, place: tuple[str, int]) -> None:
        if self._troubles.pop(name, None) is not None:
            self._store.note_trouble(*place, "")

    def _is_broken(
        self, deployment: Deployment, status: RevisionStatus, trouble: _Trouble
    ) -> bool:
        """Whether a deployment that is there will have no replica by itself any more.

        One whose replicas start has as long as they may take to be ready.
        """
        wait = self._when.loss
        if status.state is not PoolState.DOWN:
            wait = max(deployment.endpoint.ready, 3 * self._when.loss)
        return self._clock.monotonic() - trouble.since >= wait

    def _restore(self, name: str, deployment: Deployment, trouble: _Trouble) -> None:
        """Deploy a revision anew that has been missing for a while; later each time."""
        now = self._clock.monotonic()
        trouble.tries += 1
        pause = min(LEAST_BACKOFF * 2**trouble.tries, MOST_BACKOFF)
        trouble.since, trouble.due = now, now + pause
        self._tell(f"{name} is not on the cluster: deployed anew")
        self._restoring[name] = deployment
        self._replicas.start(deployment)

    def _follow(self) -> None:
        """Go on with what is being deployed anew."""
        for name, deployment in list(self._restoring.items()):
            for message in self._replicas.poll(deployment.key):
                if isinstance(message, Succeeded | Failed):
                    del self._restoring[name]
                if isinstance(message, Failed):
                    place = (deployment.endpoint.name, deployment.revision)
                    self._tell(f"{name} can't be deployed: {message.failure.evidence}")
                    self._store.note_trouble(*place, message.failure.evidence)

    # --- idle endpoints ------------------------------------------------------------------------

    def _idle(self, lives: Mapping[str, EndpointLife]) -> dict[str, EndpointLife]:
        idle_seconds = self._store.idle_seconds()
        return {
            name: life
            for name, life in lives.items()
            if self._is_ours(life.leading)
            and _is_idle(life, min(idle_seconds.get(name, math.inf), self._quiet(life)))
            and not self._is_starting(life)
        }

    def _quiet(self, life: EndpointLife) -> float:
        """Return for how many seconds its traffic has not been moved, by this process's clock.

        A move that was there before this process is as old as the clock of the store says.
        """
        now, count = self._clock.monotonic(), len(life.moves)
        quiet = self._traffic.get(life.name)
        if quiet is None or quiet[0] != count:
            first = quiet is None and life.moves
            age = max(self._store.now() - life.moves[-1].at, 0.0) if first else 0.0
            quiet = self._traffic[life.name] = count, now - age
        return now - quiet[1]

    def _is_starting(self, life: EndpointLife) -> bool:
        """Whether it is being deployed at this moment; that is not broken off."""
        return any(r.deployment and r.deployment.application in self._restoring for r in life.live)

    def _scale_to_zero(self, life: EndpointLife, live: Live, noted: Noted) -> None:
        """Remove the replicas of an idle endpoint; nobody is sent to them any more."""
        deployment = life.live[0].deployment
        assert deployment is not None, "only those of ours are idle"  # noqa: S101
        name, place = deployment.application, (life.name, deployment.revision)
        self._silent.pop(life.name, None)
        self._troubles[name] = _Trouble(-math.inf, -math.inf)  # deployed at once, when asked
        if place in noted:
            self._store.note_replicas(*place, ())
        if name in live:
            idle = deployment.endpoint.idle
            self._tell(f"{name} is scaled to zero: nobody has asked for {idle:g} s")
            self._replicas.delete(name)

    # --- pools that are lost -------------------------------------------------------------------

    def _watch(self, life: EndpointLife, live: Live) -> None:
        """Move an endpoint to its next pool when the revision that leads has lost its own."""
        if not self._is_ours(life.leading):
            return
        deployment = life.leading.deployment if life.leading else None
        status = live.get(deployment.application) if deployment else None
        if deployment is None or (status and (status.urls or _rests_at_none(deployment, status))):
            self._silent.pop(life.name, None)
            self._failed_moves.pop(life.name, None)
            return
        now = self._clock.monotonic()
        silent = now - self._silent.setdefault(life.name, now)
        rested = now - self._moved.get(life.name, -math.inf) >= self._when.between_moves
        pools = _refuges(life, deployment)
        # A pool where a replica starts is there: a large engine takes minutes to be ready.
        starts = status is not None and status.starting > 0
        patience = deployment.endpoint.ready if starts else self._when.loss
        if silent >= patience and rested and pools and not self._is_replaced(life):
            self._moved[life.name] = now
            pool = pools[self._failed_moves.get(life.name, 0) % len(pools)]
            lost = f"{deployment.name} has had no replica for {silent:.0f} s"
            self._tell(f"{lost}: {life.name} goes to pool {pool}")
            self._move(life.name, pool)

    def _is_replaced(self, life: EndpointLife) -> bool:
        """Whether somebody rolls out another revision, which may take as long to be ready."""
        now = self._clock.monotonic()
        coming = {
            r.deployment.application: r.deployment.endpoint.ready
            for r in life.live
            if r.deployment and not life.shares.get(r.number) and _takes_over(r.deployment)
        }
        before = self._coming.get(life.name, {})
        since = self._coming[life.name] = {name: before.get(name, now) for name in coming}
        return any(now - since[name] < ready for name, ready in coming.items())


def _takes_over(deployment: Deployment) -> bool:
    """Return whether a revision gets traffic by its rollout: neither help nor by hand alone."""
    return bool(deployment.endpoint.rollout.steps) and not deployment.endpoint.rollout.overflow


def _rests_at_none(deployment: Deployment, status: RevisionStatus | None) -> bool:
    """Return whether it scales down to no replica, and has none by that."""
    up = status is not None and status.state is PoolState.UP
    return up and not deployment.endpoint.replicas


def _refuges(life: EndpointLife, deployment: Deployment) -> tuple[str, ...]:
    """Return the pools to go to: fallbacks, then those that the endpoint was switched from."""
    earlier = (r.pool for r in reversed([*life.revisions.values()]) if r.deployment)
    pools = dict.fromkeys((*deployment.fallbacks, *earlier))
    return tuple(pool for pool in pools if pool != deployment.pool.name)


def _is_idle(life: EndpointLife, quiet: float) -> bool:
    """Return whether nobody has asked for so long, `quiet` seconds, that the replicas are to end.

    While there is more than one revision the traffic is on its way to another, and none is idle.
    """
    deployment = life.leading.deployment if life.leading else None
    if deployment is None or deployment.endpoint.idle is None or len(life.live) > 1:
        return False
    return quiet >= deployment.endpoint.idle
