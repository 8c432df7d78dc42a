"""What every cluster must do, be it in this process or on Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.local import LocalCluster
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import (
    Failed,
    LogLine,
    Placed,
    Points,
    PoolState,
    Progress,
    Succeeded,
    Waiting,
)
from orchestrator.ports import Cluster
from orchestrator.supervisor.record import wait
from tests.build import REF
from tests.clusters import GPU as CHIP
from tests.clusters import POOLS, begin, emulated, request
from tests.workers import worker

ALL = Needs(devices=2)
PAIR = Needs(workers=2)


@pytest.fixture(params=["local", pytest.param("ray", marks=pytest.mark.ray)])
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    if request.param == "local":
        made: Cluster = LocalCluster(worker, POOLS)
    else:
        from orchestrator.adapters.raycluster.cluster import RayCluster

        made = RayCluster(request.getfixturevalue("ray_address"), worker)
    yield made
    made.close()


@pytest.fixture
def on_ray(ray_address: str) -> Iterator[Cluster]:
    from orchestrator.adapters.raycluster.cluster import RayCluster

    made = RayCluster(ray_address, worker)
    yield made
    made.close()


def free(cluster: Cluster, name: str) -> int:
    return cluster.pools(POOLS)[name].free


def becomes_free(cluster: Cluster, name: str) -> bool:
    return wait(lambda: free(cluster, name) == POOLS[name].devices, 10.0)


def test_an_attempt_tells_its_place_then_all_it_says_then_its_result(cluster: Cluster) -> None:
    attempt = begin(cluster, request("succeed", "ordered"))
    attempt.finish()

    assert [type(m) for m in attempt.said] == [
        *(Placed, LogLine, Points, LogLine, Points, Progress, Succeeded)
    ]
    assert attempt.of(Points) == [Points(1, {"loss": 2.0}, 10.0), Points(2, {"loss": 1.0}, 11.0)]
    assert attempt.said[-1] == Succeeded(REF, {"loss": 1.0})
    assert cluster.poll(attempt.key) == ()


def test_a_failure_is_handed_on_with_the_worker_that_had_it(cluster: Cluster) -> None:
    outcome: Any = begin(cluster, request("fail", "failing")).finish()

    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.DATA
    assert outcome.failure.evidence == "no such column: 'x'"
    assert outcome.failure.rank == 0
    assert outcome.failure.node
    assert becomes_free(cluster, "nvidia")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_raises_past_its_protocol_has_failed(cluster: Cluster) -> None:
    outcome: Any = begin(cluster, request("raise_past_the_protocol", "raising")).finish()

    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.UNKNOWN
    assert outcome.failure.evidence == "RuntimeError: past the protocol"


def test_a_worker_that_ends_without_an_outcome_has_failed(cluster: Cluster) -> None:
    outcome: Any = begin(cluster, request("say_nothing", "silent")).finish()

    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.SOFTWARE
    assert outcome.failure.evidence == "worker 0 ended without an outcome"


def test_what_can_never_be_placed_is_refused_at_once_with_what_there_is(cluster: Cluster) -> None:
    began = time.monotonic()
    outcome: Any = begin(cluster, request("succeed", "greedy", needs=Needs(devices=3))).finish()

    assert time.monotonic() - began < 2.0
    assert outcome.failure.kind is FailureKind.PLACEMENT
    assert "'nvidia'" in outcome.failure.evidence
    assert "2" in outcome.failure.evidence
    assert "3" in outcome.failure.evidence


def test_a_gang_that_the_whole_pool_can_not_hold_is_refused_at_once(cluster: Cluster) -> None:
    outcome: Any = begin(cluster, request("succeed", "crowd", needs=Needs(workers=3))).finish(2.0)

    assert outcome.failure.kind is FailureKind.PLACEMENT


def test_a_pool_that_can_never_be_there_in_this_process_is_named() -> None:
    cluster = LocalCluster(worker, POOLS)
    absent = emulated("absent", CHIP)
    outcome: Any = begin(cluster, request("succeed", "lost", on=absent)).finish(2.0)

    assert outcome.failure.kind is FailureKind.PLACEMENT
    assert "'absent'" in outcome.failure.evidence


@pytest.mark.ray
def test_a_pool_without_a_live_node_is_waited_for_and_its_labels_are_told_at_once(
    on_ray: Cluster,
) -> None:
    absent = emulated("absent", CHIP)
    attempt = begin(on_ray, request("succeed", "early", on=absent))
    attempt.until_heard(Waiting, 2.0)

    reason = "pool 'absent' has no live node: none carries the labels 'pool=absent'"
    assert attempt.of(Waiting) == [Waiting(reason)]
    time.sleep(0.5)  # noqa: TID251 - the cluster's own time
    assert on_ray.poll(attempt.key) == []
    on_ray.cancel(attempt.key)
    assert becomes_free(on_ray, "nvidia")


def test_who_finds_the_pool_busy_says_so_once_and_runs_when_it_is_free(
    cluster: Cluster, tmp_path: Path
) -> None:
    until = tmp_path / "done"
    first = begin(cluster, request("hold", "holder", needs=ALL, until=str(until)))
    first.until_heard(Placed)
    second = begin(cluster, request("succeed", "waiter", needs=Needs(devices=1)))
    second.until_heard(Waiting)
    assert wait(lambda: free(cluster, "nvidia") == 0, 5.0)  # Ray tells a moment late
    until.touch()
    assert isinstance(first.finish(), Succeeded)

    assert isinstance(second.finish(), Succeeded)
    (waiting,) = second.of(Waiting)
    assert isinstance(waiting, Waiting)
    assert waiting.queued


def test_a_cancelled_attempt_says_no_more_and_frees_its_devices(
    cluster: Cluster, tmp_path: Path
) -> None:
    attempt = begin(cluster, request("hold", "cancelled", until=str(tmp_path / "never")))
    attempt.until_heard(Progress)
    cluster.cancel(attempt.key)

    assert cluster.poll(attempt.key) == ()
    assert becomes_free(cluster, "nvidia")
    cluster.cancel(attempt.key)


def test_who_waits_can_be_cancelled(cluster: Cluster, tmp_path: Path) -> None:
    holder = begin(cluster, request("hold", "kept", needs=ALL, until=str(tmp_path / "never")))
    holder.until_heard(Placed)
    waiter = begin(cluster, request("succeed", "dropped", needs=ALL))
    waiter.until_heard(Waiting)
    cluster.cancel(waiter.key)
    cluster.cancel(holder.key)

    assert becomes_free(cluster, "nvidia")


def test_attempts_on_two_pools_run_side_by_side(cluster: Cluster, tmp_path: Path) -> None:
    until = tmp_path / "done"
    held = [
        begin(cluster, request("hold", f"on-{name}", on=name, until=str(until)))
        for name in ("nvidia", "ascend")
    ]
    for attempt in held:
        attempt.until_heard(Progress)
    until.touch()

    assert [type(attempt.finish()) for attempt in held] == [Succeeded, Succeeded]


def test_work_without_a_chip_takes_none(cluster: Cluster, tmp_path: Path) -> None:
    attempt = begin(
        cluster, request("hold", "hostwork", needs=Needs(devices=0), until=str(tmp_path / "no"))
    )
    attempt.until_heard(Progress)

    assert wait(lambda: free(cluster, "nvidia") == 2, 5.0)


def test_pools_are_up_with_their_chips_and_others_are_down(cluster: Cluster) -> None:
    found = cluster.pools({**POOLS, "absent": emulated("absent", CHIP)})

    assert (found["ascend"].state, found["ascend"].nodes) == (PoolState.UP, 1)
    assert (found["ascend"].devices, found["ascend"].free) == (2, 2)
    assert found["absent"].state is PoolState.DOWN


def test_close_ends_what_runs_and_can_be_called_twice(cluster: Cluster, tmp_path: Path) -> None:
    attempt = begin(cluster, request("hold", "closed", until=str(tmp_path / "never")))
    attempt.until_heard(Progress)
    cluster.close()
    cluster.close()

    assert cluster.poll(attempt.key) == ()


def test_a_gang_in_one_process_is_refused_with_the_way_out() -> None:
    cluster = LocalCluster(worker, POOLS)
    outcome: Any = begin(cluster, request("meet", "gang", needs=PAIR)).finish()

    assert outcome.failure.kind is FailureKind.PLACEMENT
    assert "set cluster=ray" in outcome.failure.evidence


def test_an_elastic_gang_runs_with_the_one_worker_that_there_is_room_for(cluster: Cluster) -> None:
    needs = Needs(workers=4, min_workers=1, devices=2)
    attempt = begin(cluster, request("tell_workers", "elastic", needs=needs))
    attempt.finish()

    assert attempt.of(LogLine) == [LogLine(0, "1 of 1")]
    placed: Any = attempt.of(Placed)[0]
    assert len(placed.nodes) == 1


@pytest.mark.ray
def test_an_elastic_gang_has_as_many_workers_as_its_pool_holds(on_ray: Cluster) -> None:
    needs = Needs(workers=4, min_workers=2)
    attempt = begin(on_ray, request("tell_workers", "stretched", needs=needs))
    attempt.finish()

    lines: Any = attempt.of(LogLine)
    assert {line.text for line in lines} == {"1 of 2", "2 of 2"}


@pytest.mark.ray
def test_where_no_other_node_can_do_it_goes_back_to_the_one_where_it_failed(
    on_ray: Cluster,
) -> None:
    asked = replace(request("succeed", "shy"), avoid=("nvidia-0", "ascend-0"))
    attempt = begin(on_ray, asked)

    assert isinstance(attempt.finish(), Succeeded)
    assert attempt.of(Placed) == [Placed(("nvidia-0",))]


@pytest.mark.ray
def test_each_attempt_lands_on_a_node_of_its_pool(on_ray: Cluster) -> None:
    for name in ("nvidia", "ascend"):
        attempt = begin(on_ray, request("succeed", f"lands-on-{name}", on=name))
        attempt.finish()
        assert attempt.of(Placed) == [Placed((f"{name}-0",))]


@pytest.mark.ray
def test_a_gang_meets_at_rank_0_and_only_its_points_are_kept(on_ray: Cluster) -> None:
    attempt = begin(on_ray, request("meet", "gang", needs=PAIR))

    assert attempt.finish() == Succeeded(REF)
    assert attempt.of(Placed) == [Placed(("nvidia-0", "nvidia-0"))]
    assert attempt.of(Points) == [Points(1, {"rank": 0.0}, 1.0)]
    assert {line.text for line in attempt.said if isinstance(line, LogLine)} == {
        *("hello", "said hello")
    }
    assert becomes_free(on_ray, "nvidia")
