"""Rollouts under traffic of any rate: who fails everything never takes over, who is equal does."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core.endpoints.probes import Probe, ProbeAnswer
from orchestrator.core.endpoints.promotion import NOTHING, TrafficFigures, times_of
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Rollout
from orchestrator.endpoints.rollout import Rollouts
from orchestrator.messages import Failed, Message, Succeeded
from tests.build import deployment
from tests.fakes import FakeClock
from tests.serving_fakes import FakeReplicas, FakeTraffic, MemoryEndpoints


class Clients(FakeTraffic):
    """Clients who ask `rate` times a second, over an endpoint whose revisions fail by chance.

    `fails` is the share of requests that a revision fails at; probes too, where `probes` is set.
    """

    def __init__(
        self, rate: float, fails: Mapping[str, float], *, probes: bool, seed: int
    ) -> None:
        super().__init__()
        self.store = MemoryEndpoints()
        self.clock = FakeClock(1000.0)
        self._rate, self._fails, self._probes = rate, fails, probes
        self._dice = random.Random(seed)  # noqa: S311 - a test's dice
        self._due = 0.0

    def sleep(self, seconds: float) -> None:
        """Let time pass, in which clients ask."""
        self.clock.sleep(seconds)
        self._due += seconds * self._rate
        life = self.store.endpoint("chat")
        while self._due >= 1.0 and life.shares:
            self._due -= 1.0
            numbers, weights = zip(*life.shares.items(), strict=True)
            self._serve(f"r{self._dice.choices(numbers, weights)[0]}")
            if life.shadow is not None:
                self._serve(f"r{life.shadow}")

    def _serve(self, name: str) -> None:
        failed = self._dice.random() < self._fails.get(name, 0.0)
        outcome = {"errors": 1.0} if failed else {"statuses": {200: 1.0}}
        one = TrafficFigures(requests=1.0, whole=times_of(0.1), **outcome)  # type: ignore[arg-type]
        self.told[name] = self.told.get(name, NOTHING).plus(one)

    def ask(self, url: str, token: str, probe: Probe) -> ProbeAnswer:
        name = url.rpartition(".")[2]
        if self._probes and self._dice.random() < self._fails.get(name, 0.0):
            return ProbeAnswer(500, 0.1, None)
        return super().ask(url, token, probe)


def rolled_out(clients: Clients, seconds: float) -> tuple[Message | None, float]:
    """Roll a second revision out; return how that ended, and after how long."""
    rollouts = Rollouts(FakeReplicas(), clients.store, clients, clients.clock)
    for attempt, limit in ((1, 100.0), (2, seconds)):
        asked = deployment("chat", run=f"run-{attempt}", attempt=attempt)
        rollouts.start(asked)
        began = clients.clock.now()
        end: Message | None = None
        while end is None and clients.clock.now() - began < limit:
            said = rollouts.poll(asked.key)
            end = said[-1] if said and isinstance(said[-1], Succeeded | Failed) else None
            clients.sleep(0.5)
    return end, clients.clock.now() - began


RATES = st.floats(0.05, 100.0)
SEEDS = st.integers(0, 1000)


@settings(max_examples=40)
@given(RATES, SEEDS, st.floats(0.0, 0.2))
def test_a_revision_that_fails_everything_is_never_promoted(
    rate: float, seed: int, before: float
) -> None:
    clients = Clients(rate, {"r1": before, "r2": 1.0}, probes=True, seed=seed)
    end, seconds = rolled_out(clients, 120.0)
    assert isinstance(end, Failed)
    assert end.failure.kind is FailureKind.ROLLED_BACK
    assert seconds <= 60.0
    assert clients.store.endpoint("chat").shares == {1: 100}


@settings(max_examples=40)
@given(st.floats(0.5, 100.0), SEEDS)
def test_one_that_fails_clients_alone_is_never_promoted_where_there_are_some(
    rate: float, seed: int
) -> None:
    """Say, it fails at long prompts: none of the rollout's own questions finds that."""
    clients = Clients(rate, {"r2": 1.0}, probes=False, seed=seed)
    end, _ = rolled_out(clients, 900.0)
    assert isinstance(end, Failed)
    assert clients.store.endpoint("chat").shares == {1: 100}


@pytest.mark.parametrize("seed", range(20))
def test_a_failing_canary_at_a_request_a_second_goes_back_within_a_minute(seed: int) -> None:
    clients = Clients(1.0, {"r2": 1.0}, probes=False, seed=seed)
    end, seconds = rolled_out(clients, 300.0)
    assert isinstance(end, Failed)
    assert seconds <= 60.0


@settings(max_examples=30)
@given(st.one_of(st.just(0.0), RATES), SEEDS, st.sampled_from([0.0, 0.01, 0.05]))
def test_an_equal_revision_is_promoted_in_bounded_time_also_without_any_traffic(
    rate: float, seed: int, fails: float
) -> None:
    clients = Clients(rate, {"r1": fails, "r2": fails}, probes=False, seed=seed)
    end, _ = rolled_out(clients, 900.0)
    assert isinstance(end, Succeeded), end
    assert clients.store.endpoint("chat").shares == {2: 100}


def test_rules_hold_at_each_step_for_the_number_of_requests() -> None:
    clients = Clients(0.0, {}, probes=False, seed=1)
    end, seconds = rolled_out(clients, 900.0)
    assert isinstance(end, Succeeded)
    assert seconds >= 3 * Rollout().hold
