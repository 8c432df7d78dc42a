"""A worker that is not heard any more hangs, unless its whole node does not answer."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.adapters.raycluster.gang import Gang
from orchestrator.adapters.raycluster.process import WorkerProcess
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.policy import Watch
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Alive
from tests.clusters import request
from tests.workers import worker


@pytest.mark.parametrize(
    ("stands", "kind", "evidence"),
    [
        (True, FailureKind.HANG, "worker 0 on node 'h1' is silent for 36 s"),
        (
            False,
            FailureKind.NODE_LOST,
            "node 'h1' is gone (worker 0 on node 'h1' is silent for 36 s)",
        ),
    ],
)
def test_silence_of_a_node_that_does_not_answer_is_the_loss_of_the_node(
    *, stands: bool, kind: FailureKind, evidence: str
) -> None:
    asked: list[str] = []
    nodes = SimpleNamespace(name=lambda _: "h1", stands=lambda node: asked.append(node) or stands)
    wanted = replace(request("live", "gang", needs=Needs(workers=2)), watch=Watch(hang=30.0))
    stand_by = SimpleNamespace(place=SimpleNamespace(remote=lambda _parcel: object()))
    place: Any = SimpleNamespace(nodes=nodes)
    gang = Gang(worker, wanted, place, [stand_by, stand_by], now=lambda: 0.0)
    for rank in range(2):
        gang._processes[rank] = WorkerProcess("id1", rank, None)
        gang._streams[rank] = object()
        gang._silence.heard(rank, Alive(rank, 1), 0.0)

    gang._notice_silence(36.0)

    found = gang._failure_report.verdict(36.0, all_known=True)
    assert found is not None
    assert (found.kind, found.node, found.evidence) == (kind, "h1", evidence)
    assert asked == ["id1"], "once for all workers of a node"
