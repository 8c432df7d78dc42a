"""Help from another pool while an endpoint has no room: deployed when requests wait, then gone.

The revision that helps is one of the same model, made by a run of its own like any other. It takes
no share of the traffic, only what finds no room elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.core.endpoints.life import Deployment, EndpointLife, Revision, RevisionState
from orchestrator.core.errors import ConflictError, ServingError
from orchestrator.core.settings import RECONCILER, ReconcilerSettings
from orchestrator.endpoints.revisions import Revisions
from orchestrator.ports import Clock, EndpointLog, Traffic

Deploy = Callable[[Deployment, str], None]
Tell = Callable[[str], None]


@dataclass(slots=True)
class _Tries:
    """How often help was asked for, and when last."""

    count: int = 0
    last: float = -math.inf


class Overflow:
    """Looks after what helps the endpoints of a store; `tell` takes a line about what it did.

    `deploy` is called with what leads an endpoint, and the pool on which the same is to help.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - all that it acts through
        self,
        store: EndpointLog,
        traffic: Traffic,
        revisions: Revisions,
        clock: Clock,
        tell: Tell,
        deploy: Deploy,
        when: ReconcilerSettings = RECONCILER,
    ) -> None:
        self._store, self._traffic, self._revisions = store, traffic, revisions
        self._clock, self._tell, self._deploy, self._when = clock, tell, deploy, when
        self._crowded: dict[str, float] = {}
        self._tries: dict[str, _Tries] = {}
        self._needed: dict[str, tuple[float, float]] = {}  # requests so far, and since when
        self._began: dict[str, float] = {}  # when a helper was first seen

    def reconcile(self) -> None:
        """Look once. A gateway that does not answer changes nothing.

        Raises:
            StoreError: The database does not answer.
        """
        for life in self._store.endpoints().values():
            deployment = life.leading.deployment if life.leading else None
            if deployment is None or not self._revisions.here(deployment):
                continue  # another cluster's reconciler looks after it
            helper = _helper(life)
            try:
                if helper is not None:
                    self._use(life, deployment, helper)
                elif len(life.live) == 1:
                    self._ask(life, deployment)
            except (ServingError, ConflictError):
                continue

    def _ask(self, life: EndpointLife, deployment: Deployment) -> None:
        """Have help deployed where requests have waited for a moment."""
        now = self._clock.monotonic()
        pools = deployment.endpoint.helpers(deployment.pool.name)
        waiting = self._traffic.waiting(life.name) if pools else 0
        if not waiting:
            self._crowded.pop(life.name, None)
            return
        since = self._crowded.setdefault(life.name, now)
        tries = self._tries.setdefault(life.name, _Tries())
        rested = now - tries.last >= self._when.between_helps
        if now - since >= self._when.crowd and rested:
            pool = pools[tries.count % len(pools)]
            self._tries[life.name] = _Tries(tries.count + 1, now)
            self._tell(f"{waiting} requests wait for {life.name}: pool {pool} is to help")
            self._deploy(deployment, pool)

    def _use(self, life: EndpointLife, deployment: Deployment, helper: Revision) -> None:
        """Keep a helper while it is of use."""
        theirs = helper.deployment
        assert theirs is not None, "only ours help"  # noqa: S101
        now = self._clock.monotonic()
        began = self._began.setdefault(theirs.application, now)
        if helper.state is not RevisionState.READY:
            if now - began >= theirs.endpoint.ready + self._when.between_helps:
                self._retire(life, helper, "it has not become ready")
            return
        if life.helped_by(helper.number) not in (None, deployment.revision):
            self._retire(life, helper, f"{deployment.application} leads now")
            return
        figures: Mapping[str, float] = {
            name: figures.requests for name, figures in self._traffic.figures(life.name).items()
        }
        count = figures.get(helper.name, 0.0)
        before, since = self._needed.get(theirs.application, (-1.0, now))
        if count != before or self._traffic.waiting(life.name):
            self._needed[theirs.application] = count, now
        elif now - since >= self._when.lull:
            self._retire(life, helper, f"nobody needed it for {self._when.lull:g} s")

    def _retire(self, life: EndpointLife, helper: Revision, reason: str) -> None:
        self._tell(f"{life.name}.{helper.name} helps no more: {reason}")
        self._tries.pop(life.name, None)
        if helper.deployment is not None:
            self._needed.pop(helper.deployment.application, None)
            self._began.pop(helper.deployment.application, None)
        self._revisions.retire_unused(life.name, helper.number, reason)


def _helper(life: EndpointLife) -> Revision | None:
    """Return the live revision that was made to help, if there is one and it has no share."""
    for revision in life.live:
        deployment = revision.deployment
        if (
            deployment
            and deployment.endpoint.rollout.overflow
            and not life.shares.get(revision.number)
        ):
            return revision
    return None
