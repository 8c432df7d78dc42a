"""Rollouts over fakes: what the tests of rollouts start from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.endpoints.promotion import Times, TrafficFigures
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Rollout
from orchestrator.endpoints.rollout import Rollouts
from orchestrator.messages import Failed, Message, Succeeded
from tests.build import deployment
from tests.fakes import FakeClock
from tests.serving_fakes import FakeReplicas, FakeTraffic, MemoryEndpoints

RULES = Rollout(steps=(10, 50, 100), hold=10.0, requests=20)
FIRST, EACH = (Times(100, seconds, ((10.0, 100.0),)) for seconds in (10.0, 1.0))
GOOD = TrafficFigures(requests=100, statuses={200: 100.0}, first=FIRST, each=EACH)


class Bench:
    """Rollouts over fakes, driven until they end."""

    def __init__(self, broken: tuple[str, ...] = ()) -> None:
        self.clock = FakeClock(1000.0)
        self.replicas = FakeReplicas(broken)
        self.store = MemoryEndpoints()
        self.store.now = self.clock.monotonic
        self.traffic = FakeTraffic()
        self.rollouts = self.again()

    def again(self) -> Rollouts:
        """Return rollouts as another controller sees them."""
        return Rollouts(self.replicas, self.store, self.traffic, self.clock)

    def asked(self, pool_name: str, attempt: int, rules: Rollout = RULES) -> Deployment:
        made = deployment("chat", pool_name=pool_name, run=f"run-{attempt}")
        return replace(made, endpoint=replace(made.endpoint, rollout=rules))

    def go(self, asked: Deployment, seconds: float = 100.0) -> list[Message]:
        """Start a rollout and drive it for so long, or to its end."""
        self.rollouts.start(asked)
        return self.on(asked, seconds)

    def on(self, asked: Deployment, seconds: float = 100.0) -> list[Message]:
        said: list[Message] = []
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            said += self.rollouts.poll(asked.key)
            if said and isinstance(said[-1], Succeeded | Failed):
                break
            self.clock.sleep(0.5)
        return said

    @property
    def shares(self) -> Mapping[int, int]:
        return self.store.endpoint("chat").shares

    @property
    def states(self) -> dict[str, str]:
        return {r.name: str(r.state) for r in self.store.endpoint("chat").revisions.values()}


def failure(said: list[Message]) -> tuple[FailureKind, str]:
    assert isinstance(said[-1], Failed), said
    return said[-1].failure.kind, said[-1].failure.evidence
