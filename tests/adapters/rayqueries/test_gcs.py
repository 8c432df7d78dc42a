"""What a head answers is told in our words, before Ray is asked to join its cluster."""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import grpc
import pytest
import ray
from ray.core.generated import gcs_pb2, gcs_service_pb2, gcs_service_pb2_grpc

from orchestrator import wiring
from orchestrator.adapters.raycluster import jobs
from orchestrator.adapters.rayqueries import gcs
from orchestrator.core.errors import ClusterError, ServingError
from orchestrator.messages import HeadFacts, HeadNode

FAR = "192.0.2.77"  # of nobody, by RFC 5737
MINE = {"ray_version": ray.__version__, "python_version": platform.python_version()}


class Head(
    gcs_service_pb2_grpc.NodeInfoGcsServiceServicer,
    gcs_service_pb2_grpc.InternalKVGcsServiceServicer,
):
    """A head with such nodes and versions, which lets those in who show `token`."""

    def __init__(
        self,
        hosts: dict[str, str],
        versions: dict[str, str],
        token: str = "",
        session: str = "session_1",
    ) -> None:
        self.hosts, self.versions, self.token, self.session = hosts, versions, token, session

    def GetAllNodeInfo(self, request, context):  # noqa: N802 - Ray's name
        self._check(context)
        nodes = [
            gcs_pb2.GcsNodeInfo(node_name=name, node_manager_address=host, state=state)
            for name, host in self.hosts.items()
            for state in (int(name.startswith("dead")),)
        ]
        return gcs_service_pb2.GetAllNodeInfoReply(node_info_list=nodes)

    def InternalKVGet(self, request, context):  # noqa: N802 - Ray's name
        self._check(context)
        values = {
            b"CLUSTER_METADATA": json.dumps(self.versions),
            b"dashboard": "127.0.0.1:8265",
            b"session_name": self.session,
        }
        return gcs_service_pb2.InternalKVGetReply(value=values[request.key].encode())

    def _check(self, context) -> None:
        shown = dict(context.invocation_metadata()).get("authorization", "")
        if self.token and shown != f"Bearer {self.token}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")


@contextmanager
def serving(head: Head, at: int = 0) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(1))
    gcs_service_pb2_grpc.add_NodeInfoGcsServiceServicer_to_server(head, server)
    gcs_service_pb2_grpc.add_InternalKVGcsServiceServicer_to_server(head, server)
    port = server.add_insecure_port(f"127.0.0.1:{at}")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_cluster_of_which_this_machine_is_a_node_lets_it_in() -> None:
    nodes = {"h0": FAR, "here": "127.0.0.1", "dead-1": "192.0.2.78"}
    with serving(Head(nodes, MINE)) as address:
        gcs.admit(address)
        facts = gcs.ask(address)
    assert facts == HeadFacts(
        address=address,
        ray=ray.__version__,
        python=platform.python_version(),
        dashboard="127.0.0.1:8265",
        nodes=(HeadNode("h0", FAR), HeadNode("here", "127.0.0.1")),
    )


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (
            Head({"h0": FAR}, MINE),
            r"is no node of the cluster at .*: h0 \(192.0.2.77",
        ),
        (Head({"here": "127.0.0.1"}, {**MINE, "ray_version": "2.59.0"}), r"runs Ray 2\.59\.0 and"),
        (Head({"here": "127.0.0.1"}, {**MINE, "python_version": "3.9.1"}), r"runs Python 3\.9\.1"),
        (Head({}, MINE, "abc"), "wants a token, and this process has none; set RAY_AUTH_MODE"),
    ],
)
def test_what_is_in_the_way_is_told_with_what_to_do(head: Head, said: str) -> None:
    with serving(head) as address, pytest.raises(ClusterError, match=said) as refused:
        gcs.admit(address)
    assert len(str(refused.value).splitlines()) == 1


def test_who_serves_from_a_cluster_is_told_before_ray_is_asked(tmp_path: Path) -> None:
    with serving(Head({"h0": FAR}, MINE)) as address:
        replicas = wiring.replicas(tmp_path, address)
        with pytest.raises(ServingError, match="is no node of the cluster at") as refused:
            replicas.live()
    assert len(str(refused.value).splitlines()) == 1
    with pytest.raises(ServingError, match="no Ray head node answers at"):
        replicas.cluster()


def test_a_process_that_is_meant_to_have_a_token_and_has_none_is_told() -> None:
    asks = (
        "from orchestrator.adapters.rayqueries import gcs\n"
        "from orchestrator.core.errors import ClusterError\n"
        "try:\n    gcs.ask('127.0.0.1:9')\nexcept ClusterError as error:\n    print(error)"
    )
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "", "HOME": "/nowhere"}  # noqa: TID251 - a test's own
    done = subprocess.run(
        [sys.executable, "-c", asks], env=env, capture_output=True, text=True, check=False
    )
    assert "wants a token, and this process has none; set RAY_AUTH_MODE" in done.stdout


class Answering(BaseHTTPRequestHandler):
    """Answers every question with the status that its server was given."""

    def do_GET(self) -> None:
        self.send_error(self.server.status)  # type: ignore[attr-defined]

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def answering() -> Iterator[Callable[[int], str]]:
    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def at(status: int) -> str:
            server.status = status  # type: ignore[attr-defined]
            return f"127.0.0.1:{server.server_address[1]}"

        yield at
        server.shutdown()
        thread.join()


def test_a_server_of_another_protocol_is_no_head(answering: Callable[[int], str]) -> None:
    with pytest.raises(ClusterError, match=r"is no Ray head; check cluster\.address"):
        gcs.ask(answering(400))


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (401, "wants a token"),
        (403, "wants a token"),
        (404, r"no job server of Ray \(it answers 404"),
    ],
)
def test_a_job_server_that_refuses_is_told(
    answering: Callable[[int], str], status: int, said: str
) -> None:
    with pytest.raises(ClusterError, match=said):
        jobs.check(f"http://{answering(status)}")


def test_a_job_server_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ClusterError, match=r"no job server answers at .*: "):
        jobs.check(f"http://127.0.0.1:{port}")


def test_a_job_server_that_answers_its_own_host_alone_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(Head({"h0": FAR}, MINE)) as address:
        assert jobs.server_of(address) == "http://127.0.0.1:8265"
        monkeypatch.setattr(gcs, "is_here", lambda _: False)
        with pytest.raises(ClusterError, match=r"start the head with --dashboard-host=0\.0\.0\.0"):
            jobs.server_of(address)
    assert jobs.server_of("http://head:8265/") == "http://head:8265"


def test_an_address_is_of_this_machine_or_not() -> None:
    assert gcs.is_here("127.0.0.1")
    assert gcs.is_here("localhost")
    assert not gcs.is_here(FAR)
    assert not gcs.is_here("no such name")
