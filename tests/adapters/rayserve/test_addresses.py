"""Where replicas listen, as read from what Serve tells load balancers."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.adapters.rayserve import state


def group(*targets: dict[str, object]) -> dict[str, Any]:
    return {"app_name": "chat.r1", "route_prefix": "/chat.r1", "targets": targets}


REPLICA = {"ip": "10.0.0.7", "port": 30001, "instance_id": "", "name": "chat.r1#engine#x"}
PROXY = {"ip": "head", "port": 8000, "instance_id": "", "name": "SERVE_PROXY_ACTOR-103558"}


@pytest.mark.parametrize(
    ("host", "url"),
    [
        (state.HERE, "http://127.0.0.1:30001/chat.r1"),
        (state.ANYWHERE, "http://10.0.0.7:30001/chat.r1"),
    ],
)
def test_a_replica_listens_here_or_on_its_node(host: str, url: str) -> None:
    assert state.addresses(group(REPLICA), host) == (url,)


def test_the_proxy_that_stands_in_for_a_lost_pool_is_no_replica() -> None:
    assert state.addresses(group(PROXY), state.HERE) == ()
