"""Where replicas listen, as read from what Serve tells load balancers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.adapters.rayserve import state
from orchestrator.core.errors import ServingError


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


def listening(nodes: dict[str, bool], serve_on: str | None) -> str:
    """Return where replicas listen, of `nodes` by address and whether they live."""
    live = [Node(ip, ip, ip, 1, {}, {}, {}) for ip, alive in nodes.items() if alive]
    details = {"http_options": {"host": serve_on}}
    client = None if serve_on is None else SimpleNamespace(get_serve_details=lambda: details)
    own = {"127.0.0.1", "10.0.0.1"}
    return state.listening(lambda: live, lambda: client, lambda: own)


@pytest.mark.parametrize(
    ("nodes", "serve_on", "host"),
    [
        ({"10.0.0.1": True}, None, state.HERE),
        ({"10.0.0.1": True, "10.0.0.2": True}, None, state.ANYWHERE),
        ({"10.0.0.1": True, "10.0.0.2": False}, None, state.HERE),
        ({"10.0.0.1": True}, "0.0.0.0", state.ANYWHERE),  # noqa: S104 - what Serve says
        ({"10.0.0.1": True}, "127.0.0.1", state.HERE),
    ],
)
def test_replicas_listen_on_loopback_where_all_nodes_that_live_are_this_host(
    nodes: dict[str, bool], serve_on: str | None, host: str
) -> None:
    assert listening(nodes, serve_on) == host


def test_a_serve_on_loopback_is_refused_once_there_are_other_hosts() -> None:
    with pytest.raises(ServingError, match=r"nobody reaches the node at '10\.0\.0\.2': undeploy"):
        listening({"10.0.0.1": True, "10.0.0.2": True}, "127.0.0.1")


def test_an_engine_server_is_known_by_its_own_port_asked_once_for_each_replica() -> None:
    told, asked = {"x": "http://10.0.0.7:41000"}, []

    def address_of(replica: str) -> str:
        asked.append(replica)
        return told.get(replica, "")

    engines = state.EngineAddresses(address_of)
    young = {**REPLICA, "name": "chat.r1#engine#y"}
    assert engines.of(group(REPLICA, young)) == ("http://10.0.0.7:41000",)
    told["y"] = "http://10.0.0.7:41001"
    assert engines.of(group(young)) == ("http://10.0.0.7:41001",)
    assert asked == ["x", "y", "y"]
    assert engines.addresses == {"chat.r1": {"chat.r1#engine#y": "http://10.0.0.7:41001"}}


def test_a_replica_that_has_its_place_and_does_not_answer_yet_is_told_to_start() -> None:
    replicas = (
        state.ServeReplica("a", "STARTING", "n1"),
        state.ServeReplica("b", "STARTING", ""),
        state.ServeReplica("c", "RUNNING", "n1"),
    )
    application = state.ServeApplication(
        state="DEPLOYING", status="", message="", key="", pool="a", replicas=replicas, urls=()
    )
    assert state.status(application).starting == 1
