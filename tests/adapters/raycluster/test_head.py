"""Nothing is asked of Ray while its head is silent; a head that stays silent is gone."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.adapters.raycluster.head import LOOK_SECONDS, Head
from orchestrator.core.errors import ClusterError
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Placed, Succeeded
from tests.adapters.rayqueries.test_gcs import MINE, serving
from tests.adapters.rayqueries.test_gcs import Head as OfRay
from tests.clusters import begin, request
from tests.fakes import FakeClock
from tests.ports import free_port
from tests.workers import worker

PATIENCE = 30.0


def test_a_head_is_gone_when_it_has_not_answered_for_seconds() -> None:
    clock = FakeClock(100.0)
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        head = Head(f"127.0.0.1:{port}", PATIENCE, clock.now)
        assert head.answers
    assert head.answers  # it is not looked at all the time
    clock.sleep(LOOK_SECONDS)
    assert not head.answers
    assert not head.lost
    clock.sleep(PATIENCE + 0.1)
    assert head.lost
    with socket.create_server(("127.0.0.1", port)):
        assert head.answers
        assert not head.lost


@pytest.mark.parametrize(
    ("session", "answers", "gone"),
    [("first", True, False), ("second", False, True), ("", False, False)],
    ids=["as it was", "without what it knew", "not yet"],
)
def test_a_head_that_comes_back_is_the_same_by_what_it_says(
    session: str,
    answers: bool,  # noqa: FBT001 - a parameter
    gone: bool,  # noqa: FBT001 - a parameter
) -> None:
    port = free_port()
    head = Head(f"127.0.0.1:{port}", PATIENCE, FakeClock(100.0).now, session="first")
    assert not head.probe()
    with serving(OfRay({}, MINE, session=session), at=port):
        assert (head.probe(), head.lost) == (answers, gone)


@pytest.mark.ray
def test_while_the_head_is_silent_attempts_wait_and_then_the_cluster_is_gone(
    ray_address: str,
) -> None:
    cluster, clock = RayCluster(ray_address, worker), FakeClock(100.0)
    cluster._head = Head("127.0.0.1:9", PATIENCE, clock.now)
    attempt = begin(cluster, request("succeed", "headless"))
    assert cluster.poll(attempt.key) == ()
    clock.sleep(PATIENCE + 0.1)
    with pytest.raises(ClusterError, match=r"^the Ray cluster at '127\.0\.0\.1:9' is gone$"):
        cluster.poll(attempt.key)
    with pytest.raises(ClusterError, match="is silent"):
        cluster.pools({})
    cluster._head = Head(ray_address, PATIENCE)
    attempt.finish()
    cluster.close()


@pytest.mark.ray
def test_what_is_cancelled_while_the_head_is_silent_is_ended_when_it_is_back(
    ray_address: str, tmp_path: Path
) -> None:
    cluster, clock = RayCluster(ray_address, worker), FakeClock(100.0)
    attempt = begin(cluster, request("hold", "orphan", until=str(tmp_path / "never")))
    attempt.until_heard(Placed)
    head, cluster._head = cluster._head, Head("127.0.0.1:9", PATIENCE, clock.now)
    cluster.cancel(attempt.key)
    after = begin(cluster, request("succeed", "after", needs=Needs(devices=2)))
    assert after.cluster.poll(after.key) == ()
    cluster._head = head

    assert isinstance(after.finish(), Succeeded)
    cluster.close()
