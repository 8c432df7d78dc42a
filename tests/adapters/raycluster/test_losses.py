"""What is lost is told within seconds, and by its cause: a killed worker, a killed node."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.adapters.raycluster import managed_ray
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, PoolState, Progress, Succeeded, Waiting
from orchestrator.ports import Worker
from orchestrator.supervisor.record import wait
from tests.clusters import POOLS, Attempt, begin, request
from tests.workers import worker

pytestmark = pytest.mark.ray
PAIR = Needs(workers=2)


@pytest.fixture
def run() -> Worker:
    return worker


def pid_of(attempt: Attempt) -> int:
    line: Any = attempt.of(LogLine)[0]
    return int(line.text)


def test_a_killed_worker_is_told_at_once(cluster: RayCluster, tmp_path: Path) -> None:
    attempt = begin(cluster, request("hold", "killed", until=str(tmp_path / "never")))
    attempt.until_heard(Progress)
    os.kill(pid_of(attempt), signal.SIGKILL)
    began = time.monotonic()
    outcome: Any = attempt.finish()

    assert time.monotonic() - began < 5.0
    assert isinstance(outcome, Failed)
    assert outcome.failure.kind is FailureKind.WORKER_LOST
    assert (outcome.failure.rank, outcome.failure.node) == (0, "nvidia-0")


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_worker_wrote_before_it_died_is_heard_once_before_that_is_weighed(
    cluster: RayCluster, workers: int
) -> None:
    asked = request("die_with_last_words", f"last-{workers}", needs=Needs(workers=workers))
    attempt = begin(cluster, asked)
    outcome: Any = attempt.finish()

    words = "CUDA error: an illegal memory access was encountered"
    assert LogLine(workers - 1, words) in attempt.said
    assert words in outcome.failure.detail
    assert (outcome.failure.rank, outcome.failure.node) == (workers - 1, "nvidia-0")
    lines: Any = attempt.of(LogLine)
    assert [line.text for line in lines if line.rank == workers - 1].count("started") == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_a_failure_that_was_told_counts_though_its_process_died_before_it_was_sent(
    cluster: RayCluster, workers: int
) -> None:
    needs = Needs(workers=workers)
    asked = request("fail_and_die_unheard", f"unheard-{workers}", needs=needs)
    failure = begin(cluster, asked).finish().failure  # type: ignore[union-attr]

    assert (failure.kind, failure.evidence) == (FailureKind.DATA, "no such column: 'x'")
    assert (failure.rank, failure.step, failure.node) == (workers - 1, 3, "nvidia-0")


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("how", "end", "kind"),
    [
        ("exit", "exited with code 13", FailureKind.WORKER_LOST),
        ("native", "exited with code 77", FailureKind.WORKER_LOST),
        ("abort", "was ended by SIGABRT", FailureKind.SOFTWARE),
    ],
)
def test_how_a_worker_ended_and_its_last_line_are_the_evidence(
    cluster: RayCluster, workers: int, how: str, end: str, kind: FailureKind
) -> None:
    needs = Needs(workers=workers)
    asked = request("exit_with_last_words", f"{how}-{workers}", needs=needs, how=how)
    failure = begin(cluster, asked).finish().failure  # type: ignore[union-attr]

    place = f"worker {workers - 1} on nvidia-0"
    assert failure.evidence == f"{place} {end}; its last line: xyzzy: fatal 0x77"
    assert (failure.kind, failure.certain) == (kind, kind is FailureKind.WORKER_LOST)


def test_of_a_gang_the_lost_worker_is_told_and_not_the_broken_link(cluster: RayCluster) -> None:
    outcome: Any = begin(cluster, request("lose_one", "torn", needs=PAIR)).finish()

    assert outcome.failure.kind is FailureKind.WORKER_LOST
    assert outcome.failure.rank == 1


def test_the_first_worker_to_fail_ends_the_gang(cluster: RayCluster) -> None:
    attempt = begin(cluster, request("break_one", "broken", needs=PAIR))
    outcome: Any = attempt.finish()

    assert outcome.failure.kind is FailureKind.DATA
    assert outcome.failure.rank == 1
    assert wait(lambda: cluster.pools(POOLS)["nvidia"].free == 2, 10.0)
    again = begin(cluster, request("succeed", "after", needs=Needs(devices=2)))
    assert isinstance(again.finish(), Succeeded)


def test_a_killed_node_is_told_within_seconds_and_its_pool_is_down(
    cluster: RayCluster,
    ray_home: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    attempt = begin(cluster, request("hold", "razed", on="spare", until=str(tmp_path / "never")))
    attempt.until_heard(Progress)
    kill_raylet(ray_home, "spare-0")
    began = time.monotonic()
    outcome: Any = attempt.finish()

    assert time.monotonic() - began < 5.0
    assert outcome.failure.kind is FailureKind.NODE_LOST
    assert "'spare-0'" in outcome.failure.evidence
    assert wait(lambda: cluster.pools(POOLS)["spare"].state is PoolState.DOWN, 10.0)
    later = begin(cluster, request("succeed", "ruins", on="spare"))
    later.until_heard(Waiting, 5.0)
    (waiting,) = later.of(Waiting)
    assert "pool 'spare' has no live node" in str(waiting)
    cluster.cancel(later.key)
    assert capsys.readouterr() == ("", "")


def kill_raylet(home: Path, node: str) -> None:
    """Kill the raylet of `node`: of all processes, the child of the one that was recorded."""
    found = managed_ray.find(home)
    assert found is not None
    for path in Path("/proc").glob("[0-9]*/stat"):
        name, _, rest = path.read_text().partition(" (")[2].rpartition(") ")
        if name == "raylet" and int(rest.split()[1]) == found.processes[node]:
            os.kill(int(path.parent.name), signal.SIGKILL)
            return
    pytest.fail(f"no raylet of {node!r}")
