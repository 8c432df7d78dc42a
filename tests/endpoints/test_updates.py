"""Live weights: stored once a replica has taken them, and brought to all who missed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import (
    Deployment,
    EndpointEvent,
    EndpointLife,
    RevisionAdded,
    RevisionReady,
    RevisionRetired,
    RevisionUpdated,
    SharesMoved,
)
from orchestrator.core.errors import ConflictError, ServingError
from orchestrator.endpoints import updates
from orchestrator.endpoints.reconciler import Reconciler
from orchestrator.endpoints.revisions import Revisions
from orchestrator.messages import ReplicaWeights
from tests.build import deployment
from tests.fakes import FakeClock
from tests.serving_fakes import FakeReplicas, MemoryEndpoints

NEW = RevisionUpdated(1, ArtifactRef("file:///artifacts/new", "1" * 64, 20), "chat/2")
OLD = "r1-00000000"


class Racing(MemoryEndpoints):
    """A store that somebody else changes just before each commit."""

    def __init__(self) -> None:
        super().__init__()
        self.first: list[EndpointEvent] = []

    def follow(self, life: EndpointLife, events: Sequence[EndpointEvent], at: float) -> None:
        if self.first:
            first, self.first = self.first, []
            super().follow(self.endpoint(life.name), first, at)
        super().follow(life, events, at)


class Bench:
    """Endpoint `chat`, whose revision 1 has three replicas."""

    def __init__(self) -> None:
        self.clock = FakeClock(10.0)
        self.replicas = FakeReplicas()
        self.store = Racing()
        self.told: list[str] = []
        made = deployment("chat")
        events = [RevisionAdded(1, made), RevisionReady(1), SharesMoved({1: 100}, "first")]
        self.store.follow(self.store.endpoint("chat"), events, 1.0)
        self.replicas.there["chat.r1"] = made
        self.serve(OLD, OLD, OLD)
        ports = (self.store, self.replicas, self.clock)
        self.reconciler = Reconciler(ports, self.told.append, lambda *_: None)

    def serve(self, *versions: str) -> None:
        replicas = {f"http://{n}": ReplicaWeights(version=v) for n, v in enumerate(versions)}
        self.replicas.replicas["chat.r1"] = replicas

    @property
    def served(self) -> list[str]:
        return [one.version for one in self.replicas.replicas["chat.r1"].values()]

    @property
    def stored(self) -> Deployment:
        found = self.store.endpoint("chat").revisions[1].deployment
        assert found is not None
        return found

    def update(self) -> tuple[int, list[str]]:
        revisions = Revisions(self.store, self.replicas, self.clock)
        return updates.update(revisions, self.replicas, self.store.endpoint("chat"), NEW)

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.reconciler.reconcile()
            self.clock.sleep(1.0)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_all_replicas_and_the_store_have_the_new_weights(bench: Bench) -> None:
    assert bench.update() == (3, [])
    assert bench.served == ["chat/2"] * 3
    assert (bench.stored.model, bench.stored.weights) == (NEW.model, "chat/2")
    bench.pass_time(30)
    assert len(bench.replicas.updated) == 3, "nobody is behind"


def test_of_one_replica_one_is_told(bench: Bench) -> None:
    bench.serve(OLD)
    assert str(bench.update()) == "(1, [])"


def test_what_a_replica_refuses_is_not_stored_and_goes_to_no_other(bench: Bench) -> None:
    bench.replicas.refusals["chat/2"] = "the shape of a tensor is another"
    with pytest.raises(ServingError, match="the shape of a tensor"):
        bench.update()
    assert (bench.served, bench.stored.weights) == ([OLD] * 3, OLD)
    assert len(bench.replicas.updated) == 1


def test_a_revision_without_replicas_starts_from_the_new_weights(bench: Bench) -> None:
    bench.serve()
    assert bench.update() == (0, [])
    assert bench.stored.model == NEW.model
    bench.replicas.there.clear()
    bench.pass_time(10)
    assert bench.replicas.there["chat.r1"].model == NEW.model, "deployed anew"


def test_one_that_is_retired_meanwhile_takes_the_old_weights_back(bench: Bench) -> None:
    bench.store.first = [RevisionRetired(1, "enough")]
    with pytest.raises(ConflictError):
        bench.update()
    assert (bench.served, bench.stored.weights) == ([OLD] * 3, OLD)


def test_a_change_of_traffic_meanwhile_is_in_nobodys_way(bench: Bench) -> None:
    bench.store.first = [RevisionAdded(2, deployment("chat", revision=2))]
    assert bench.update() == (3, [])
    assert bench.stored.weights == "chat/2"


def test_one_on_another_cluster_is_not_touched(bench: Bench) -> None:
    life = bench.store.lives["chat"]
    far = replace(life.revisions[1], deployment=replace(bench.stored, cluster="elsewhere"))
    bench.store.lives["chat"] = replace(life, revisions={1: far})
    with pytest.raises(ServingError, match=r"chat\.r1 runs on another cluster"):
        bench.update()
    assert bench.replicas.updated == []


def test_replicas_that_missed_an_update_are_brought_to_it(bench: Bench) -> None:
    bench.update()
    bench.serve("chat/2", OLD, "chat/2")  # one was started again from what it was made of
    bench.pass_time(1)
    assert bench.served[1] == OLD, "whoever updates tells a replica a moment before the store"
    bench.pass_time(10)
    assert bench.served == ["chat/2"] * 3
    assert f"chat.r1: http://1 serves {OLD}, and is updated to chat/2" in bench.told


def test_replicas_whose_update_was_never_stored_go_back(bench: Bench) -> None:
    bench.serve("chat/9", OLD)
    bench.pass_time(10)
    assert bench.served == [OLD, OLD]


def test_one_that_refuses_is_told_and_asked_again_later(bench: Bench) -> None:
    bench.update()
    bench.serve(OLD)
    bench.replicas.refusals["chat/2"] = "no memory"
    bench.pass_time(60)
    asked = len(bench.replicas.updated) - 3
    assert asked == 1
    bench.replicas.refusals.clear()
    bench.pass_time(30)
    assert "chat.r1: http://0 refused chat/2: no memory" in bench.told
    assert bench.served == ["chat/2"]


def test_one_whose_update_is_on_its_way_is_left_alone(bench: Bench) -> None:
    bench.update()
    pending = ReplicaWeights(version=OLD, pending="chat/2")
    bench.replicas.replicas["chat.r1"] = {"http://0": pending}
    bench.pass_time(30)
    assert len(bench.replicas.updated) == 3
