"""What is done to Serve: start it, deploy an endpoint, delete one, stop it with the last.

Serve's own calls share one client in a process and are not thread-safe: one lock holds them all.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus

import ray
from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from orchestrator.adapters.rayserve import placement, state
from orchestrator.adapters.rayserve.replica import Fetch, MakeClock, Replica
from orchestrator.core.endpoints import Deployment
from orchestrator.core.errors import ServingError

FOREIGN = (RayError, RayServeException, OSError, RuntimeError, TimeoutError, ValueError)

_REMOVE_SECONDS = 30.0
_POLL_SECONDS = 0.2
_ANSWER_SECONDS = 60.0
_LONGEST_STREAM_SECONDS = 300.0
_HEAD = "node:__internal_head__"
# An endpoint that runs but does not answer so yet: its route reaches the proxy a moment later.
_UNREADY = {HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE}
_one_at_a_time = threading.RLock()


def application(
    deployment: Deployment, fetch: Fetch, clock: MakeClock, *, surge: bool
) -> serve.Application:
    """Return what Serve is to run; with `surge`, new replicas start before old ones stop."""
    made = serve.deployment(
        Replica,
        name=state.DEPLOYMENT,
        num_replicas=deployment.endpoint.replicas,
        ray_actor_options=placement.actor_options(deployment),
        user_config={"revision": deployment.key},
        max_ongoing_requests=256,
        max_queued_requests=1024,
        graceful_shutdown_timeout_s=_LONGEST_STREAM_SECONDS,
        graceful_shutdown_wait_loop_s=_POLL_SECONDS,
        max_constructor_retry_count=1,  # what to try again is the orchestrator's to decide
        max_surge_percent=100 if surge else 0,
    )
    return made.bind(deployment, fetch, clock)


def deploy(name: str, made: serve.Application, port: int) -> frozenset[str]:
    """Deploy an endpoint without waiting for its replicas, and start Serve where there is none.

    Returns:
        The replicas of an earlier revision.

    Raises:
        ServingError: The port is in use, or Serve uses another.
    """
    with _one_at_a_time:
        running = state.instance()
        _check_port(port, running)
        earlier = running.applications.get(name) if running else None
        try:
            if running is None:
                http_options = {"host": state.HOST, "port": port}
                serve.start(proxy_location="HeadOnly", http_options=http_options)
            target = serve.RunTarget(made, name, f"/{name}")
            serve.run_many([target], wait_for_applications_running=False)
        except FOREIGN:
            if earlier is None:
                remove(name)
            raise
    return frozenset(replica.id for replica in earlier.replicas) if earlier else frozenset()


def remove(name: str) -> None:
    """Delete an endpoint, and stop Serve with the last one.

    Raises:
        ServingError: It did not go within its time.
    """
    with _one_at_a_time:
        if name in _names():
            serve.delete(name, _blocking=False)
        if not _within(_REMOVE_SECONDS, lambda: name not in _names()):
            last = f"it goes when its streams end, within {_LONGEST_STREAM_SECONDS:g} s"
            raise ServingError(f"endpoint {name!r} still answers requests; {last}")
        if not _names():
            state.stop()


def ask(name: str, port: int) -> str:
    """Have one token over HTTP: the proof that an endpoint answers. Return its base URL.

    Raises:
        ServingError: It answers by an error.
    """
    deadline = time.monotonic() + _ANSWER_SECONDS
    body = json.dumps({"model": name, "prompt": "1", "max_tokens": 1})
    while True:
        status, said = _post(port, f"/{name}/v1/completions", body)
        if status == HTTPStatus.OK:
            return state.base_url(name, port)
        if status not in _UNREADY or time.monotonic() > deadline:
            raise ServingError(f"endpoint {name!r} answers {status}: {said[:300]!r}")
        threading.Event().wait(_POLL_SECONDS)


def _post(port: int, path: str, body: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(state.HOST, port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("POST", path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def _names() -> frozenset[str]:
    running = state.instance()
    return frozenset(running.applications if running else ())


def _within(seconds: float, done: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(_POLL_SECONDS)
    return True


def _check_port(port: int, running: state.Instance | None) -> None:
    """Refuse a port in use; it is known only where the head, with the proxy, is this machine."""
    if running is not None:
        if running.port != port:
            line = f"this cluster serves on port {running.port}, not on {port}"
            raise ServingError(f"{line}; set cluster.serve_port={running.port}")
        return
    here = ray.util.get_node_ip_address()
    heads = [node for node in ray.nodes() if _HEAD in node["Resources"]]
    if any(node["NodeManagerAddress"] == here for node in heads) and _taken(port):
        line = f"port {port} of {state.HOST} is in use"
        raise ServingError(f"{line}; set cluster.serve_port to a free port")


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((state.HOST, port))
        except OSError:
            return True
    return False
