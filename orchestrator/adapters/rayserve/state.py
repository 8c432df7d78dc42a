"""What Serve says of itself: its applications, their replicas, and why one does not come up.

`serve.status()` names no nodes and no pools, so its source, the details, is read instead. This is
the only module that reaches for Serve's private client.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayActorError
from ray.serve.context import _get_global_client

from orchestrator.messages import EndpointStatus, PoolState

HOST = "127.0.0.1"
DEPLOYMENT = "engine"
_STOP_SECONDS = 30.0

_STATES = {"RUNNING": PoolState.UP, "DEPLOYING": PoolState.BUSY, "DELETING": PoolState.BUSY}


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica as Serve sees it."""

    id: str
    state: str
    node: str


@dataclass(frozen=True, slots=True)
class Application:
    """An application, which is an endpoint, as Serve sees it.

    `state` is the application's, `status` and `message` are those of its one deployment, and
    speak of `revision`; they are older than the application for a moment after each deployment.
    """

    state: str
    status: str
    message: str
    revision: str
    pool: str
    replicas: tuple[Replica, ...]

    @property
    def running(self) -> tuple[Replica, ...]:
        """Replicas that answer."""
        return tuple(replica for replica in self.replicas if replica.state == "RUNNING")

    @property
    def error(self) -> str:
        """The traceback of the replica that failed last; empty where none did."""
        return self.message.partition("Error:\n")[2]


@dataclass(frozen=True, slots=True)
class Instance:
    """Serve on this cluster."""

    port: int
    applications: Mapping[str, Application]


def instance() -> Instance | None:
    """Return what runs, or `None` where Serve was not started."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    details: dict[str, Any] = client.get_serve_details()
    names = {node["NodeID"]: node["NodeName"] for node in ray.nodes()}
    found = details["applications"].items()
    return Instance(
        port=int(details["http_options"]["port"]),
        applications={name: _application(details, names) for name, details in found},
    )


def stop() -> None:
    """Stop Serve. Its own call is retried by Ray while the controller dies, and prints so."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    ending = client._controller.graceful_shutdown.options(max_task_retries=0)  # noqa: SLF001 - see above
    with suppress(RayActorError, GetTimeoutError):
        ray.get(ending.remote(), timeout=_STOP_SECONDS)
    serve.shutdown()


def endpoint(name: str, application: Application, port: int) -> EndpointStatus:
    """Return an application as an endpoint."""
    return EndpointStatus(
        name=name,
        url=base_url(name, port),
        pool=application.pool,
        state=_STATES.get(application.state, PoolState.DOWN),
        replicas=len(application.running),
    )


def base_url(name: str, port: int) -> str:
    """Return the OpenAI base URL of an endpoint."""
    return f"http://{HOST}:{port}/{name}/v1"


def _application(details: Mapping[str, Any], names: Mapping[str, str]) -> Application:
    engine = details["deployments"].get(DEPLOYMENT, {})
    config = engine.get("deployment_config", {})
    options = config.get("ray_actor_options") or {}
    replicas = tuple(
        Replica(r["replica_id"], _word(r["state"]), names.get(r.get("node_id", ""), ""))
        for r in engine.get("replicas", ())
    )
    return Application(
        state=_word(details["status"]),
        status=_word(engine.get("status", "")),
        message=str(engine.get("message", "")),
        revision=str((config.get("user_config") or {}).get("revision", "")),
        pool=(options.get("label_selector") or {}).get("pool", ""),
        replicas=replicas,
    )


def _word(state: object) -> str:
    """Return the name of a state, which Serve gives as an enumeration or as its value."""
    return str(getattr(state, "value", state))
