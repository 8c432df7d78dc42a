"""What is done to Serve: start it, deploy a revision, delete one, stop it with the last.

Replicas listen on ports of their own (Serve's direct ingress). Serve starts a proxy on its head
all the same, which nobody uses: it takes any free port.
Serve's own calls share one client in a process and are not thread-safe: one lock holds them all.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from orchestrator.adapters.rayserve import replica_placement, state
from orchestrator.adapters.rayserve.engine_server import EngineServer
from orchestrator.adapters.rayserve.replica import Replica, sealed
from orchestrator.adapters.rayserve.scaling import FollowLoad
from orchestrator.adapters.rayserve.serve_requests import DeploymentPorts, ServeRequest
from orchestrator.adapters.rayserve.weights import PATH, WeightsOrder
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ServingError
from orchestrator.messages import ReplicaWeights

FOREIGN = (RayError, RayServeException, OSError, RuntimeError, TimeoutError, ValueError)

_POLL_SECONDS = 0.2
_ANSWER_SECONDS = 60.0
_MOMENT_SECONDS = 2.0
# A replica that runs but does not answer so yet.
_UNREADY = {HTTPStatus.NOT_FOUND, HTTPStatus.SERVICE_UNAVAILABLE}
_POLICY = f"{FollowLoad.__module__}:{FollowLoad.__name__}"
_one_at_a_time = threading.RLock()


def application(
    request: ServeRequest, access: DeploymentPorts, host: str, avoid: Sequence[str] = ()
) -> serve.Application:
    """Return what Serve is to run; replicas listen on `host`, and on no node to `avoid`."""
    deployment = request.deployment
    server, secrets = deployment.endpoint.server is not None, access.secrets_of(deployment)
    runs = serve.deployment(
        EngineServer if server else Replica,
        name=state.DEPLOYMENT,
        **_size(request),
        **replica_placement.serve_options(deployment, avoid),
        user_config={
            "key": deployment.key,
            state.SERVER: server,
            state.POOL: deployment.pool.name,
            state.SPREAD: replica_placement.nodes_of(deployment) > 1,
        },
        max_ongoing_requests=deployment.endpoint.requests_at_once,
        health_check_period_s=1.0,
        health_check_timeout_s=10.0,
        graceful_shutdown_timeout_s=deployment.endpoint.drain_seconds,
        graceful_shutdown_wait_loop_s=_POLL_SECONDS,
        max_constructor_retry_count=1,  # what to try again is the orchestrator's to decide
    )
    if server:
        own = "" if host == state.ANYWHERE else host
        return runs.bind(sealed(deployment, access.fetch, own, secrets))
    return runs.bind(sealed(deployment, access.fetch, access.clock, secrets))


def _size(request: ServeRequest) -> dict[str, Any]:
    """Return how many replicas there are to be: a number, or bounds within which they scale."""
    endpoint = request.deployment.endpoint
    if endpoint.max_replicas is None:
        return {"num_replicas": endpoint.replicas}
    scaling: dict[str, Any] = {
        "min_replicas": endpoint.replicas,
        "max_replicas": endpoint.max_replicas,
        "initial_replicas": max(1, request.replicas),
        "target_ongoing_requests": endpoint.target_requests,
        "upscale_delay_s": 2.0,
        "downscale_delay_s": 60.0,
    }
    if endpoint.target_tokens is not None or endpoint.server is not None:
        target = (
            {} if endpoint.target_tokens is None else {"target_tokens": endpoint.target_tokens}
        )
        scaling["policy"] = {"policy_function": _POLICY, "policy_kwargs": target}
    return {"autoscaling_config": scaling}


def deploy(name: str, runs: serve.Application, host: str) -> None:
    """Deploy a revision without waiting for its replicas, and start Serve where there is none.

    Replicas listen on `host`.
    """
    with _one_at_a_time:
        try:
            if state.applications() is None:
                serve.start(http_options={"host": host, "port": 0})
            target = serve.RunTarget(runs, name, f"/{name}")
            serve.run_many([target], wait_for_applications_running=False)
        except FOREIGN:
            remove(name)
            raise


def remove(name: str) -> None:
    """Have a revision deleted, which happens once its streams have ended."""
    with _one_at_a_time:
        if name in (state.applications() or {}):
            serve.delete(name, _blocking=False)


def stop() -> bool:
    """Stop Serve, unless something is deployed or on its way out; return whether it is stopped."""
    with _one_at_a_time:
        if state.applications():
            return False
        state.stop()
        return True


def ask(url: str, token: str, path: str) -> None:
    """Wait until `path` at a replica or its engine answers 200: `/ready` is the engine's own word.

    Raises:
        ServingError: It answers by an error, or not at all.
    """
    deadline = time.monotonic() + _ANSWER_SECONDS
    while True:
        try:
            status, answer = _request(url + path, token)
        except (OSError, http.client.HTTPException) as error:
            status, answer = HTTPStatus.SERVICE_UNAVAILABLE, repr(error)
        if status == HTTPStatus.OK:
            return
        if status not in _UNREADY or time.monotonic() > deadline:
            raise ServingError(f"the replica at {url!r} answers {status}: {answer[:300]!r}")
        threading.Event().wait(_POLL_SECONDS)


def weights(replicas: Sequence[str], token: str) -> dict[str, ReplicaWeights]:
    """Return what the replicas serve that answer within a moment, all asked at once."""

    def served(url: str) -> ReplicaWeights | None:
        try:
            status, text = _request(url + PATH, token, seconds=_MOMENT_SECONDS)
            return ReplicaWeights(**json.loads(text)) if status == HTTPStatus.OK else None
        except (OSError, http.client.HTTPException, ValueError, TypeError):
            return None

    with ThreadPoolExecutor(max_workers=max(len(replicas), 1)) as threads:
        answers = zip(replicas, threads.map(served, replicas), strict=True)
        return {url: answer for url, answer in answers if answer is not None}


def update(deployment: Deployment, replica: str, *, wait: bool) -> None:
    """Have the replica at an address serve the model of `deployment`.

    Raises:
        ServingError: It does not take the model, or does not answer.
    """
    order = WeightsOrder(
        model=deployment.model,
        storage=deployment.storage,
        version=deployment.weights,
        wait=wait,
    )
    seconds = deployment.endpoint.ready if wait else _MOMENT_SECONDS
    body = json.dumps(asdict(order))
    try:
        status, text = _request(replica + PATH, deployment.token, seconds=seconds, body=body)
    except (OSError, http.client.HTTPException) as error:
        raise ServingError(f"the replica at {replica!r} does not answer: {error!r}") from error
    if status not in {HTTPStatus.OK, HTTPStatus.ACCEPTED}:
        raise ServingError(f"the replica at {replica!r} answers {status}: {_message(text)}")


def _message(text: str) -> str:
    """Return what an answer says is wrong."""
    try:
        return str(json.loads(text)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return repr(text[:300])


def _request(
    url: str, token: str, *, seconds: float = _ANSWER_SECONDS, body: str | None = None
) -> tuple[int, str]:
    """Ask a replica; where there is a `body`, post that."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=seconds)
    try:
        method = "GET" if body is None else "POST"
        headers = {"Authorization": f"Bearer {token}"}
        connection.request(method, parts.path, body, headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()
