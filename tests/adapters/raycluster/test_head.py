"""Nothing is asked of Ray while its head is silent; a head that stays silent is gone."""

from __future__ import annotations

import socket

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.adapters.raycluster.head import GONE_SECONDS, LOOK_SECONDS, Head
from orchestrator.core.errors import ClusterError
from tests.clusters import begin, request
from tests.fakes import FakeClock
from tests.workers import worker


def test_a_head_is_gone_when_it_has_not_answered_for_seconds() -> None:
    clock = FakeClock(100.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        head = Head(f"127.0.0.1:{port}", clock.now)
        assert head.there
    assert head.there  # it is not looked at all the time
    clock.sleep(LOOK_SECONDS)
    assert not head.there
    assert not head.gone
    clock.sleep(GONE_SECONDS + 0.1)
    assert head.gone
    with socket.create_server(("127.0.0.1", port)):
        assert head.there
        assert not head.gone


@pytest.mark.ray
def test_while_the_head_is_silent_attempts_wait_and_then_the_cluster_is_gone(
    ray_address: str,
) -> None:
    cluster, clock = RayCluster(ray_address, worker), FakeClock(100.0)
    cluster._head = Head("127.0.0.1:9", clock.now)
    attempt = begin(cluster, request("succeed", "headless"))
    assert cluster.poll(attempt.key) == ()
    clock.sleep(GONE_SECONDS + 0.1)
    way_out = "is gone; `orchestrator resume run` goes on when it is up again"
    with pytest.raises(ClusterError, match=way_out):
        cluster.poll(attempt.key)
    with pytest.raises(ClusterError, match="is silent"):
        cluster.pools({})
    cluster._head = Head(ray_address)
    attempt.finish()
    cluster.close()
