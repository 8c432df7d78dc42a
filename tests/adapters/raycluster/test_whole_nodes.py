"""The workers of a gang lie as many on each of its nodes, whatever is free elsewhere."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray

import tests.workers
from orchestrator.adapters.raycluster import access, managed_ray
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import AttemptRequest, LogLine, Placed, Progress, Succeeded, Waiting
from tests.clusters import POOLS, Attempt, begin, cluster_of, request
from tests.workers import worker

WIDE = replace(POOLS["ascend"], name="wide", nodes=3)
NAMES = ["LOCAL_WORLD_SIZE"]


def held(stage: str, until: Path) -> AttemptRequest:
    return request("hold", stage, on=WIDE, until=str(until))


def nodes_of(attempt: Attempt) -> tuple[str, ...]:
    placed: Any = attempt.of(Placed)[0]
    return tuple(placed.nodes)


@pytest.mark.ray
@pytest.mark.timeout(300)  # a busy machine is long at a cluster of its own
def test_four_workers_lie_two_on_each_of_two_nodes_although_a_chip_is_free_elsewhere(
    tmp_path: Path,
) -> None:
    with cluster_of({"wide": WIDE}) as home:
        running = managed_ray.find(home)
        assert running is not None
        access.connect(running.address)
        ray.cloudpickle.register_pickle_by_value(tests.workers)
        cluster = RayCluster(running.address, worker)
        first = begin(cluster, held("first", tmp_path / "go"))
        first.until_heard(Progress)
        elsewhere = replace(held("other", tmp_path / "never"), avoid=nodes_of(first))
        other = begin(cluster, elsewhere)
        other.until_heard(Progress)
        asked = request("tell_environment", "gang", on=WIDE, needs=Needs(workers=4), names=NAMES)
        gang = begin(cluster, asked)
        gang.until_heard(Waiting)
        busy = "pool 'wide' is busy: 4 x (1 CPU, 1 NPU), 2 on each node, is not free"
        assert gang.said == [Waiting(busy, queued=True)]
        (tmp_path / "go").touch()
        assert isinstance(first.finish(), Succeeded)

        assert isinstance(gang.finish(), Succeeded)
        assert sorted(Counter(nodes_of(gang)).values()) == [2, 2]
        assert set(nodes_of(gang)).isdisjoint(nodes_of(other)), "where a chip is free"
        lines: Any = gang.of(LogLine)
        environments = [json.loads(line.text) for line in lines]
        assert [environment["LOCAL_WORLD_SIZE"] for environment in environments] == ["2"] * 4
        cluster.close()
        ray.cloudpickle.unregister_pickle_by_value(tests.workers)
