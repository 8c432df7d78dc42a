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
from ray.serve._private.constants import SERVE_PROXY_NAME
from ray.serve.context import _get_global_client

from orchestrator.messages import PoolState, RevisionStatus

DEPLOYMENT = "engine"
HERE = "127.0.0.1"
ANYWHERE = "0.0.0.0"  # noqa: S104 - other nodes reach the replicas, which ask for a token
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
    """An application, which is a revision of an endpoint, as Serve sees it.

    `state` is the application's, `status` and `message` are those of its one deployment. `key` is
    the attempt that deployed it, and `urls` are the base URLs of replicas that answer.
    """

    state: str
    status: str
    message: str
    key: str
    pool: str
    replicas: tuple[Replica, ...]
    urls: tuple[str, ...]

    @property
    def running(self) -> tuple[Replica, ...]:
        """Replicas that answer."""
        return tuple(replica for replica in self.replicas if replica.state == "RUNNING")

    @property
    def error(self) -> str:
        """The traceback of the replica that failed last; empty where none did."""
        return self.message.partition("Error:\n")[2]


def applications(host: str = ANYWHERE) -> Mapping[str, Application] | None:
    """Return what runs, or `None` where Serve was not started; replicas listen on `host`."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    details: dict[str, Any] = client.get_serve_details()
    names = {node["NodeID"]: node["NodeName"] for node in ray.nodes()}
    urls = {group["app_name"]: addresses(group, host) for group in details["target_groups"]}
    found = details["applications"].items()
    return {name: _application(one, names, urls.get(name, ())) for name, one in found}


def stop() -> None:
    """Stop Serve. Its own call is retried by Ray while the controller dies, and prints so."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    ending = client._controller.graceful_shutdown.options(max_task_retries=0)  # noqa: SLF001 - see above
    with suppress(RayActorError, GetTimeoutError):
        ray.get(ending.remote(), timeout=_STOP_SECONDS)
    serve.shutdown()


def status(application: Application) -> RevisionStatus:
    """Return an application as a revision."""
    return RevisionStatus(
        pool=application.pool,
        state=_STATES.get(application.state, PoolState.DOWN),
        urls=application.urls,
    )


def addresses(group: Mapping[str, Any], host: str) -> tuple[str, ...]:
    """Return where the replicas of an application listen, each on a port of its own.

    Serve tells the address of the machine, which is not where one on loopback listens. Where no
    replica runs it names its proxy in their place, which has nobody to hand a request to either.
    """
    prefix = group["route_prefix"]
    replicas = (one for one in group["targets"] if not one["name"].startswith(SERVE_PROXY_NAME))
    places = ((one["ip"] if host == ANYWHERE else host, one["port"]) for one in replicas)
    return tuple(f"http://{ip}:{port}{prefix}" for ip, port in places)


def _application(
    details: Mapping[str, Any], names: Mapping[str, str], urls: tuple[str, ...]
) -> Application:
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
        key=str((config.get("user_config") or {}).get("key", "")),
        pool=(options.get("label_selector") or {}).get("pool", ""),
        replicas=replicas,
        urls=urls,
    )


def _word(state: object) -> str:
    """Return the name of a state, which Serve gives as an enumeration or as its value."""
    return str(getattr(state, "value", state))
