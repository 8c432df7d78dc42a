"""A worker that is not heard any more hangs, unless its whole node does not answer."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import TaskCancelledError, WorkerCrashedError

from orchestrator.adapters.raycluster.gang import Gang
from orchestrator.adapters.raycluster.process import WorkerProcess
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Alive
from tests.clusters import request
from tests.workers import worker


class Nodes:
    """Nodes of which those `standing` live; `asked` is for which each question was."""

    def __init__(self, *standing: str) -> None:
        self._standing = set(standing)
        self.asked: list[set[str]] = []

    def name(self, node: str) -> str:
        return node

    def alive(self) -> set[str]:
        return self._standing

    def standing(self, nodes: Collection[str]) -> set[str]:
        self.asked.append(set(nodes))
        return self._standing & set(nodes)


def gang_on(nodes: Nodes, *ids: str) -> Gang:
    """Return a gang of which a worker is on each of the nodes `ids`, and was alive at 0.0."""
    wanted = replace(
        request("live", "gang", needs=Needs(workers=len(ids))), watch=Watch(hang=30.0)
    )
    stand_by = SimpleNamespace(place=SimpleNamespace(remote=lambda _parcel: object()))
    place: Any = SimpleNamespace(nodes=nodes)
    gang = Gang(worker, wanted, place, [stand_by] * len(ids), now=lambda: 0.0)
    for rank, node in enumerate(ids):
        gang._processes[rank] = WorkerProcess(node, rank, None)
        gang._streams[rank] = object()
        gang._silence.heard(rank, Alive(rank, 1), 0.0)
    return gang


@pytest.mark.parametrize(
    ("standing", "kind", "evidence"),
    [
        (("h1",), FailureKind.HANG, "worker 0 on node 'h1' is silent for 36 s"),
        (
            (),
            FailureKind.NODE_LOST,
            "node 'h1' is gone (worker 0 on node 'h1' is silent for 36 s)",
        ),
    ],
)
def test_silence_of_a_node_that_does_not_answer_is_the_loss_of_the_node(
    standing: tuple[str, ...], kind: FailureKind, evidence: str
) -> None:
    nodes = Nodes(*standing)
    gang = gang_on(nodes, "h1", "h1")

    gang._notice_silence(36.0)

    found = gang._failure_report.verdict(36.0, all_known=True)
    assert found is not None
    assert (found.kind, found.node, found.evidence) == (kind, "h1", evidence)
    assert nodes.asked == [{"h1"}], "once for all workers of a node"


def test_all_silent_nodes_are_asked_at_once() -> None:
    nodes = Nodes("h2")
    gang_on(nodes, "h1", "h2", "h3")._notice_silence(36.0)
    assert nodes.asked == [{"h1", "h2", "h3"}]


def test_the_nodes_of_all_workers_that_went_together_are_asked_at_once() -> None:
    nodes = Nodes("h2")
    gang = gang_on(nodes, "h1", "h2", "h3", "h4")
    died = WorkerCrashedError()

    lost = gang._lost({0: died, 1: died, 2: died, 3: TaskCancelledError()})

    assert nodes.asked == [{"h1", "h2", "h3"}]
    assert {rank: failure.kind for rank, failure in lost.items()} == {
        0: FailureKind.NODE_LOST,
        1: FailureKind.WORKER_LOST,
        2: FailureKind.NODE_LOST,
        3: FailureKind.CANCELLED,
    }


def test_streams_that_broke_in_one_turn_are_weighed_together() -> None:
    nodes = Nodes()
    gang = gang_on(nodes, "h1", "h2")
    gang._broken = {0: WorkerCrashedError(), 1: WorkerCrashedError()}
    gang._weigh_broken(1.0)

    found = gang._failure_report.verdict(1.0, all_known=True)
    assert found is not None
    assert (found.kind, found.node) == (FailureKind.NODE_LOST, "h1")
    assert nodes.asked == [{"h1", "h2"}]
