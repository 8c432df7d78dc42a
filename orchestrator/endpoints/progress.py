"""How far a rollout has come: values alone, which `Rollouts` changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from orchestrator.core.endpoints.life import WHOLE, Deployment, EndpointLife
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.endpoints.canary import Canary
from orchestrator.messages import Failed

SECONDS_OF_SILENCE = 60.0  # beyond what a step may take: nobody drives that rollout any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a move leads: shares and reason as the store has them then, the step, the doubt."""

    shares: Mapping[int, int]
    reason: str
    step: int
    doubted: float | None = None

    def reached(self, life: EndpointLife) -> bool:
        """Return whether the last move of an endpoint is this one."""
        last = life.moves[-1] if life.moves else None
        return last is not None and (last.shares, last.reason) == (self.shares, self.reason)


@dataclass(slots=True)
class RolloutProgress:
    """A revision on its way; `step` counts its steps, -1 before the first.

    `shares` are what it has moved the traffic to last, `target` a move of which the store has not
    said that it has it. `doubted` is since when it gets copies alone, because its figures at a
    step were in doubt. `finishing`: it has taken over, and the others go. `failed` is why it could
    not be deployed, `back` why it is on its way back. `pause` is how long the store has been let
    alone last, until `wake`; `awaited` how many moves the endpoint had when this came to wait for
    another rollout, and when that was.
    """

    deployment: Deployment
    began: float
    added: bool = False
    begun: bool = False
    deployed: bool = False
    ready: float | None = None
    old: Mapping[int, int] = field(default_factory=dict)
    shares: Mapping[int, int] = field(default_factory=dict)
    step: int = -1
    since: float = 0.0
    looked: float = -math.inf
    shadowed: bool = False
    canary: Canary | None = None
    target: Target | None = None
    doubted: float | None = None
    finishing: bool = False
    failed: Failed | None = None
    back: tuple[str, FailureKind] | None = None
    pause: float = 0.0
    wake: float = -math.inf
    awaited: tuple[int, float] | None = None

    @property
    def name(self) -> str:
        """Name of the endpoint."""
        return self.deployment.endpoint.name

    @property
    def number(self) -> int:
        """Number of the revision."""
        return self.deployment.revision

    @property
    def pool(self) -> str:
        """Name of its pool."""
        return self.deployment.pool.name

    @property
    def share(self) -> int:
        """Percent of the traffic that it has, by what was moved last."""
        if self.step < 0 or self.doubted is not None:
            return 0
        return self.deployment.endpoint.rollout.steps[self.step] if self.old else WHOLE

    def arrive(self, target: Target, now: float) -> None:
        """Be where a move leads, at `now` on the monotonic clock."""
        self.shares, self.step, self.doubted = target.shares, target.step, target.doubted
        self.since, self.target = now, None

    def begin_anew(self, life: EndpointLife, canary: Canary) -> None:
        """Stand before the first step, beside who leads now."""
        self.old, self.canary = dict(life.shares), canary
        self.step, self.shadowed, self.doubted = -1, False, None

    def go_on_beside(self, life: EndpointLife) -> None:
        """Take the shares of the others as they are by now."""
        self.shares = dict(life.shares)
        self.old = {
            number: share for number, share in self.shares.items() if number != self.number
        }

    def awaits(self, life: EndpointLife, now: float) -> bool:
        """Return whether another rollout moves the traffic: one at a time does.

        One that has moved nothing for longer than a step of it may take is waited for no more.
        """
        rules, other = self.deployment.endpoint.rollout, life.revisions.get(life.rollout or 0)
        moves = rules.steps and not rules.overflow
        if not moves or other is None or other.deployment is None or other.number == self.number:
            self.awaited = None
            return False
        if self.awaited is None or self.awaited[0] != len(life.moves):
            self.awaited = len(life.moves), now
        theirs = other.deployment.endpoint.rollout
        return now - self.awaited[1] < theirs.hold + theirs.doubt + SECONDS_OF_SILENCE
