"""Replace replicas on nodes that are not to be used by others, which start first.

All replicas of such a revision are replaced at once: others start beside them, on other nodes of
the pool, and requests go there when all of those answer. What was replaced goes after that, when
its answers have ended. Where the pool has no room for them all stays as it is, until it has. What
serves is known by the cluster alone, so whoever looks next goes on with what is on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

from orchestrator.core.endpoints.life import Deployment
from orchestrator.messages import Failed, Replacement, RevisionStatus, Succeeded, Waiting
from orchestrator.ports import Clock, Replicas

SECONDS_OF_GRACE = 3.0  # until every gateway has seen where requests go now
LEAST_BACKOFF, MOST_BACKOFF = 15.0, 600.0  # seconds between two tries


@dataclass(slots=True)
class _Retries:
    """How often replicas could not be replaced, and when it is tried again."""

    count: int = 0
    due: float = 0.0


class Replacements:
    """Looks at revisions that serve, one at a time; `tell` takes a line about what it does."""

    def __init__(self, replicas: Replicas, clock: Clock, tell: Callable[[str], None]) -> None:
        self._replicas, self._clock, self._tell = replicas, clock, tell
        self._replacing: dict[str, Deployment] = {}
        self._since: dict[tuple[str, Replacement], float] = {}
        self._tries: dict[str, _Retries] = {}

    def advance(self, deployment: Deployment, status: RevisionStatus) -> None:
        """Go on with a revision whose addresses were noted as `status` has them.

        Raises:
            ServingError: The cluster does not do it.
        """
        name = deployment.application
        for stage in Replacement:
            if status.replacement is not stage:
                self._since.pop((name, stage), None)
        if status.replacement is not None:
            self._go_on(deployment, status.replacement)
        elif name in self._replacing and not status.misplaced:
            del self._replacing[name]
            self._replicas.cancel(deployment.key)
            self._tell(f"{deployment.name} stays where it is: its nodes may be used again")
        elif name not in self._replacing and status.misplaced:
            self._ask(deployment, status)

    def follow(self, wanted: Container[str]) -> None:
        """Hear of what is being started; of revisions that are not `wanted` any more it goes."""
        for name, deployment in list(self._replacing.items()):
            if name not in wanted:
                del self._replacing[name]
                self._replicas.cancel(deployment.key)
                continue
            for message in self._replicas.poll(deployment.key):
                if isinstance(message, Waiting):
                    self._tell(
                        f"replicas of {deployment.name} are not replaced yet: {message.reason}"
                    )
                elif isinstance(message, Succeeded):
                    self._replacing.pop(name, None)
                    self._tries.pop(name, None)
                elif isinstance(message, Failed):
                    self._replacing.pop(name, None)
                    why = f"could not be replaced: {message.failure.evidence}"
                    self._tell(f"replicas of {deployment.name} {why}")
                    self._fall_back(name)

    def _ask(self, deployment: Deployment, status: RevisionStatus) -> None:
        """Have other replicas started, as many as answer now."""
        name = deployment.application
        if self._clock.monotonic() < self._tries.setdefault(name, _Retries()).due:
            return
        nodes = ", ".join(map(repr, status.misplaced))
        self._tell(f"{deployment.name} is on {nodes}, not to be used: others take its place")
        self._fall_back(name)
        self._replicas.replace(deployment, max(deployment.endpoint.replicas, len(status.urls)))
        self._replacing[name] = deployment

    def _fall_back(self, name: str) -> None:
        tries = self._tries.setdefault(name, _Retries())
        pause = min(LEAST_BACKOFF * 2**tries.count, MOST_BACKOFF)
        tries.count, tries.due = tries.count + 1, self._clock.monotonic() + pause

    def _go_on(self, deployment: Deployment, stage: Replacement) -> None:
        name, now = deployment.application, self._clock.monotonic()
        waited = now - self._since.setdefault((name, stage), now)
        if stage is Replacement.READY and waited >= SECONDS_OF_GRACE:
            self._replicas.end_replacement(name, takes_over=True)
            self._tell(f"{deployment.name} has moved: what was replaced goes")
        elif (
            stage is Replacement.STARTING
            and name not in self._replacing
            and waited >= deployment.endpoint.ready
        ):
            self._replicas.end_replacement(name, takes_over=False)
