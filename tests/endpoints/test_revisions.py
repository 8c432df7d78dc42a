"""Of two that change an endpoint at the same moment, none is taken for another controller."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from orchestrator.core.endpoints.life import (
    EndpointEvent,
    EndpointLife,
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    RevisionState,
    TrafficMoved,
)
from orchestrator.core.errors import ConflictError, StaleControllerError
from orchestrator.endpoints.revisions import Revisions
from tests.build import deployment
from tests.fakes import FakeClock
from tests.serving_fakes import FakeReplicas, MemoryEndpoints


class Crowded(MemoryEndpoints):
    """Somebody else changes the endpoint just before the next change is committed."""

    def __init__(self) -> None:
        super().__init__()
        self.others: list[Callable[[EndpointLife], Sequence[EndpointEvent]]] = []

    def follow(self, life: EndpointLife, events: Sequence[EndpointEvent], at: float) -> None:
        if self.others:
            now = self.endpoint(life.name)
            super().follow(now, self.others.pop(0)(now), at)
        super().follow(life, events, at)


def added(number: int) -> RevisionAdded:
    return RevisionAdded(number, replace(deployment("chat"), revision=number))


@pytest.fixture
def store() -> Crowded:
    """An endpoint whose first revision has all traffic, and whose second is ready."""
    store = Crowded()
    events = (added(1), RevisionReady(1), TrafficMoved({1: 100}, "first"), added(2))
    MemoryEndpoints.follow(store, store.endpoint("chat"), events, 0.0)
    return store


@pytest.fixture
def revisions(store: Crowded) -> Revisions:
    return Revisions(store, FakeReplicas(), FakeClock())


def test_what_another_does_beside_it_does_not_keep_a_change(
    store: Crowded, revisions: Revisions
) -> None:
    store.others = [lambda _life: [added(3)], lambda _life: [RevisionReady(3)]]
    revisions.commit(store.endpoint("chat"), RevisionReady(2))
    assert store.endpoint("chat").revisions[2].state is RevisionState.READY
    assert 3 in store.endpoint("chat").revisions


def test_traffic_that_another_has_moved_is_not_moved_over_it(
    store: Crowded, revisions: Revisions
) -> None:
    revisions.commit(store.endpoint("chat"), RevisionReady(2))
    store.others = [lambda _life: [TrafficMoved({2: 100}, "by hand")]]
    with pytest.raises(ConflictError) as caught:
        revisions.commit(store.endpoint("chat"), TrafficMoved({1: 90, 2: 10}, "rollout"))
    assert not isinstance(caught.value, StaleControllerError)
    assert store.endpoint("chat").shares == {2: 100}


def test_a_number_that_another_took_first_is_a_conflict(
    store: Crowded, revisions: Revisions
) -> None:
    store.others = [lambda _life: [added(3)]]
    with pytest.raises(ConflictError):
        revisions.commit(store.endpoint("chat"), added(3))


def test_a_revision_is_retired_though_others_change_the_endpoint(
    store: Crowded, revisions: Revisions
) -> None:
    made = store.endpoint("chat").revisions[2].deployment
    assert made
    store.others = [lambda _life: [added(3)]]
    revisions.take_back(made, {}, "cancelled")
    assert store.endpoint("chat").revisions[2].state is RevisionState.RETIRED


def test_a_revision_that_another_has_retired_is_retired(
    store: Crowded, revisions: Revisions
) -> None:
    made = store.endpoint("chat").revisions[2].deployment
    assert made
    store.others = [lambda _life: [RevisionRetired(2, "by hand")]]
    revisions.retire(made, "cancelled")
    assert store.endpoint("chat").revisions[2].state is RevisionState.RETIRED
