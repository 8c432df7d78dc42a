"""Live weights: a revision serves another model, and no request is dropped.

The store says what a revision serves. One replica takes the new model first: what that refuses is
never stored. Then the store is told, then the others; the reconciler brings those to it that have
missed it, and those that were started from what was served before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from orchestrator.core.endpoints.life import Deployment, EndpointLife, RevisionUpdated
from orchestrator.core.errors import OrchestratorError, ServingError
from orchestrator.endpoints.revisions import Revisions
from orchestrator.ports import Clock, Replicas

SECONDS_BETWEEN_LOOKS = 5.0
SECONDS_AFTER_A_REFUSAL = 60.0
Tell = Callable[[str], None]


def update(
    revisions: Revisions, replicas: Replicas, life: EndpointLife, updated: RevisionUpdated
) -> tuple[int, list[str]]:
    """Have a revision of `life` serve the model of `updated`.

    Return how many replicas serve it, and in words which don't yet.

    Raises:
        ServingError: A replica does not take the model, or is on another cluster; nothing has
            changed.
        ConflictError: Somebody else has changed the endpoint; nothing has changed.
    """
    before = life.revisions[updated.number].deployment
    assert before is not None, "those outside have no weights of ours"  # noqa: S101
    after = before.updated(updated)
    if not revisions.here(before):
        raise ServingError(f"{before.name} runs on another cluster; update it from there")
    first, *others = [*replicas.weights(before)] or [""]
    if first:
        replicas.update(after, first)
    try:
        revisions.commit(life, updated)
    except (OrchestratorError, OSError):
        if first:
            _late(replicas, before, first)  # the reconciler does it, where this can't
        raise
    if not others:
        return int(bool(first)), []
    with ThreadPoolExecutor(max_workers=len(others)) as threads:
        late = [
            why
            for why in threads.map(lambda replica: _late(replicas, after, replica), others)
            if why
        ]
    return 1 + len(others) - len(late), late


def _late(replicas: Replicas, deployment: Deployment, replica: str) -> str:
    """Update a replica; return why it is not."""
    try:
        replicas.update(deployment, replica)
    except ServingError as error:
        return str(error)
    return ""


class Updates:
    """Brings replicas to what the store says; used by one thread.

    A replica is updated when it serves another version at two looks: whoever updates a revision
    tells one replica a moment before the store.
    """

    def __init__(self, replicas: Replicas, clock: Clock, tell: Tell) -> None:
        self._replicas = replicas
        self._clock = clock
        self._tell = tell
        self._looked: dict[str, float] = {}
        self._behind: dict[tuple[str, str], str] = {}
        self._retry: dict[tuple[str, str, str], float] = {}

    def catch_up(self, deployment: Deployment) -> None:
        """Look what the replicas of a revision serve, every few seconds, and begin what is due.

        Raises:
            ServingError: Serving can't be reached.
        """
        now, name = self._clock.monotonic(), deployment.application
        if now - self._looked.get(name, -math.inf) < SECONDS_BETWEEN_LOOKS:
            return
        self._looked[name] = now
        wanted = deployment.weights
        seen = self._replicas.weights(deployment)
        for gone in [place for place in self._behind if place[0] == name and place[1] not in seen]:
            del self._behind[gone]
        for replica, weights in seen.items():
            place = (name, replica)
            if weights.version == wanted or weights.pending:
                self._behind.pop(place, None)
                continue
            if self._behind.get(place) != wanted:
                self._behind[place] = wanted
                continue
            if now < self._retry.get((*place, wanted), -math.inf):
                continue
            if weights.refused == wanted:
                self._tell(f"{name}: {replica} refused {wanted}: {weights.reason}")
            self._retry[(*place, wanted)] = now + SECONDS_AFTER_A_REFUSAL
            self._begin(deployment, replica, weights.version)

    def _begin(self, deployment: Deployment, replica: str, serves: str) -> None:
        name, wanted = deployment.application, deployment.weights
        self._tell(f"{name}: {replica} serves {serves}, and is updated to {wanted}")
        try:
            self._replicas.update(deployment, replica, wait=False)
        except ServingError as error:
            self._tell(f"{name}: {error}")
