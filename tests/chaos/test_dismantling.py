"""A cluster is taken apart node by node: gangs shrink and avoid nodes, until the head is gone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

import tests.workers
from orchestrator.adapters.raycluster import access, managed_ray
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.errors import ClusterError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.settings import ClusterSettings
from orchestrator.core.spec.emulation import Emulation
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Alive, Placed, Succeeded, Waiting
from orchestrator.supervisor.record import wait
from tests.build import pool
from tests.clusters import MLU, begin, request
from tests.workers import worker

pytestmark = [pytest.mark.ray, pytest.mark.chaos]
WIDE = pool("wide", chip=MLU, nodes=2, devices_per_node=2, cpus_per_node=4, emulation=Emulation())
ELASTIC = Needs(workers=4, min_workers=1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("own")
    access.connect(managed_ray.up(made, {"wide": WIDE}, ClusterSettings()))
    ray.cloudpickle.register_pickle_by_value(tests.workers)
    yield made
    ray.cloudpickle.unregister_pickle_by_value(tests.workers)
    ray.shutdown()
    managed_ray.down(made)


@pytest.fixture
def cluster(home: Path) -> Iterator[RayCluster]:
    found = managed_ray.find(home)
    assert found is not None
    made = RayCluster(found.address, worker, ClusterSettings().managed_patience)
    yield made
    made.close()


def all_is_free(cluster: RayCluster, devices: int) -> bool:
    return wait(lambda: cluster.pools({"wide": WIDE})["wide"].free == devices, 10.0)


@pytest.mark.parametrize("workers", [1, 2])
def test_nodes_to_avoid_get_no_worker(cluster: RayCluster, workers: int) -> None:
    for other, avoided in ((1, "wide-0"), (0, "wide-1")):
        asked = request("meet" if workers > 1 else "succeed", f"shy-{workers}-{other}", on=WIDE)
        asked = replace(asked, needs=Needs(workers=workers), avoid=(avoided,))
        attempt = begin(cluster, asked)

        assert isinstance(attempt.finish(), Succeeded)
        assert attempt.of(Placed) == [Placed((f"wide-{other}",) * workers)]


def test_what_does_not_fit_beside_the_nodes_to_avoid_goes_back_to_them(
    cluster: RayCluster,
) -> None:
    asked = replace(request("succeed", "crowd", on=WIDE), needs=Needs(workers=3))
    attempt = begin(cluster, replace(asked, avoid=("wide-0",)))

    assert isinstance(attempt.finish(), Succeeded)
    assert len(attempt.of(Placed)) == 1


def test_an_elastic_gang_goes_on_with_fewer_when_others_hold_the_rest(
    cluster: RayCluster, tmp_path: Path
) -> None:
    until = str(tmp_path / "never")
    all_is_free(cluster, 4)
    holder = begin(
        cluster, request("hold", "holder", on=WIDE, needs=Needs(devices=2), until=until)
    )
    holder.until_heard(Placed)
    elastic = begin(cluster, request("live", "elastic", on=WIDE, needs=ELASTIC))
    elastic.until_heard(Placed)
    placed: Any = elastic.of(Placed)[0]

    assert len(placed.nodes) == 2
    assert len(elastic.of(Waiting)) == 1


def test_a_stopped_raylet_is_noticed(cluster: RayCluster, home: Path) -> None:
    all_is_free(cluster, 4)
    avoid = ("wide-0",)
    attempt = begin(cluster, replace(request("live", "frozen", on=WIDE), avoid=avoid))
    attempt.until_heard(Alive)
    stop(home, "wide-1", signal.SIGSTOP)
    began = time.monotonic()
    outcome: Any = attempt.finish()

    assert time.monotonic() - began < 15.0
    assert outcome.failure.kind is FailureKind.NODE_LOST
    assert outcome.failure.node == "wide-1"
    stop(home, "wide-1", signal.SIGKILL)


def test_an_elastic_gang_has_as_many_workers_as_the_nodes_that_are_left_hold(
    cluster: RayCluster,
) -> None:
    assert wait(lambda: cluster.pools({"wide": WIDE})["wide"].nodes == 1, 15.0)
    attempt = begin(cluster, request("live", "shrunk", on=WIDE, needs=ELASTIC))
    attempt.until_heard(Placed)

    assert attempt.of(Placed) == [Placed(("wide-0", "wide-0"))]


def test_a_cluster_whose_head_is_gone_is_told_as_such_with_the_way_out(
    cluster: RayCluster, home: Path
) -> None:
    attempt = begin(cluster, request("live", "orphaned", on=WIDE))
    attempt.until_heard(Alive)
    found = managed_ray.find(home)
    assert found is not None
    head = psutil.Process(found.processes["head"])
    for process in (head, *head.children(recursive=True)):
        process.kill()
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"^the Ray cluster at '[0-9.:]+' is gone$"):
        attempt.finish(30.0)

    assert time.monotonic() - began < 10.0
    cluster.cancel(attempt.key)
    with pytest.raises(ClusterError, match="is silent"):
        cluster.pools({"wide": WIDE})


def stop(home: Path, node: str, how: signal.Signals) -> None:
    """Send `how` to the raylet of `node`."""
    found = managed_ray.find(home)
    assert found is not None
    raylet = next(
        one for one in psutil.Process(found.processes[node]).children() if one.name() == "raylet"
    )
    os.kill(raylet.pid, how)
