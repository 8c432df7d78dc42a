"""Whatever rollouts, people, losses and a database that goes away do at once, somebody serves."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.endpoints.life import (
    WHOLE,
    Deployment,
    EndpointEvent,
    EndpointLife,
    RevisionRetired,
    RevisionState,
    SharesMoved,
)
from orchestrator.core.errors import OrchestratorError, StoreError, TransitionError
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.endpoints.rollout import Rollouts
from orchestrator.messages import Failed, Succeeded
from tests.endpoints.bench import RULES, Bench
from tests.serving_fakes import MemoryEndpoints

POOLS = ("a", "b", "c", "broken")
ACTS = ("launch", "move", "retire", "lose", "cancel", "die", "away", "lost", "bad", "pass")


class Shaky(MemoryEndpoints):
    """A store that is away, or whose answers are lost, for so many commits."""

    away = 0
    lost = 0

    def follow(self, life: EndpointLife, events: Sequence[EndpointEvent], at: float) -> None:
        if self.away:
            self.away -= 1
            raise StoreError("the database is away")
        super().follow(life, events, at)
        if self.lost:
            self.lost -= 1
            raise StoreError("the connection is gone")


class EndpointAtRandom:
    """An endpoint that serves, two controllers that may roll out, a reconciler, and people."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - an example's
        self.bench = Bench(broken=("broken",))
        self.store = self.bench.store = Shaky()
        self.bench.rollouts = self.bench.again()
        self.clock, self.replicas = self.bench.clock, self.bench.replicas
        assert isinstance(self.bench.go(self.bench.asked("a", 1))[-1], Succeeded)
        ports = (self.store, self.replicas, self.clock)
        self.reconciler = Reconciler(ports, lambda _: None, lambda *_: None)
        self.controllers: list[tuple[Rollouts, Deployment]] = []
        self.attempts = 1

    @property
    def life(self) -> EndpointLife:
        return self.store.endpoint("chat")

    def act(self, what: str) -> None:
        getattr(self, what)()
        self.look()

    def launch(self) -> None:
        if len(self.controllers) < 2:
            self.attempts += 1
            steps = self.chance.choice([(100,), (10, 50, 100), ()])
            rules = replace(RULES, steps=steps, shadow=self.chance.random() < 0.3)
            asked = self.bench.asked(self.chance.choice(POOLS), self.attempts, rules)
            rollouts = self.bench.again()
            rollouts.start(asked)
            self.controllers.append((rollouts, asked))

    def move(self) -> None:
        ready = [r.number for r in self.life.live if r.state is RevisionState.READY]
        chosen = self.chance.sample(ready, min(len(ready), 2))
        first = self.chance.choice([100, 90, 50])
        shares = {chosen[0]: first, **dict.fromkeys(chosen[1:], WHOLE - first)}
        with suppress(StoreError, TransitionError):  # not a hundred together
            self.store.follow(self.life, [SharesMoved(shares, "by ann")], self.clock.now())

    def retire(self) -> None:
        """Retire one that has no traffic, as a person may."""
        for one in self.life.live:
            if not self.life.shares.get(one.number):
                with suppress(StoreError):
                    retired = RevisionRetired(one.number, "by ann")
                    self.store.follow(self.life, [retired], self.clock.now())
                return

    def lose(self) -> None:
        """Have all replicas of a revision die."""
        if self.replicas.there:
            del self.replicas.there[self.chance.choice(sorted(self.replicas.there))]

    def cancel(self) -> None:
        if self.controllers:
            rollouts, asked = self.controllers.pop(0)
            rollouts.cancel(asked.key)

    def die(self) -> None:
        """Have a controller killed; another one gives its attempt up."""
        if self.controllers:
            _, asked = self.controllers.pop(0)
            self.bench.again().cancel(asked.key)

    def away(self) -> None:
        self.store.away = self.chance.randint(1, 5)

    def lost(self) -> None:
        self.store.lost = self.chance.randint(1, 2)

    def bad(self) -> None:
        """Have a revision fail what it is asked, or end that."""
        status = self.bench.traffic.status_of
        name = f"chat.r{self.chance.randint(1, self.life.next_number)}"
        if status.pop(name, None) is None:
            status[name] = 500

    def look(self, seconds: float = 2.0) -> None:
        until = self.clock.now() + seconds
        while self.clock.now() < until:
            for one in list(self.controllers):
                said = one[0].poll(one[1].key)
                if said and isinstance(said[-1], Succeeded | Failed):
                    self.controllers.remove(one)
            with suppress(OrchestratorError):
                self.reconciler.reconcile()
            self.clock.sleep(0.5)
            life = self.life
            assert sum(life.shares.values()) == WHOLE, life.moves
            for number in life.shares:
                assert life.revisions[number].state is RevisionState.READY

    def pass_(self) -> None:
        self.look(8.0)


setattr(EndpointAtRandom, "pass", EndpointAtRandom.pass_)


@settings(max_examples=100)
@given(acts=st.lists(st.sampled_from(ACTS), min_size=5, max_size=40), seed=st.integers(0, 999))
def test_somebody_ready_has_all_traffic_and_every_rollout_ends(acts: list[str], seed: int) -> None:
    world = EndpointAtRandom(seed)
    for what in acts:
        world.act(what)
    world.bench.traffic.status_of.clear()
    for _ in range(40):  # longer than a doubt
        if world.controllers:
            world.look(30.0)
    assert world.controllers == [], "each ends"
    world.look(30.0)
    life = world.life
    states = {one.state for one in life.revisions.values()}
    assert RevisionState.STARTING not in states
    assert sorted(world.replicas.there) == sorted(f"chat.{one.name}" for one in life.live)
    assert {place[1] for place in world.store.replicas()} == {one.number for one in life.live}
