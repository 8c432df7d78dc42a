"""What Serve says of itself: its applications, their replicas, and why one does not come up.

`serve.status()` names no nodes and no pools, so its source, the details, is read instead. This is
the only module that reaches for Serve's private client.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psutil
import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayActorError
from ray.serve._private.constants import SERVE_PROXY_NAME
from ray.serve.context import _get_global_client, _set_global_client

from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.adapters.rayserve.engine_server import address_of
from orchestrator.core.errors import ServingError
from orchestrator.messages import PoolState, Replacement, RevisionStatus

DEPLOYMENT = "engine"
SERVER = "server"  # in the user config: whether the engine listens at a port of its own
POOL = "pool"  # in it too, since Serve does not tell by which labels it placed several nodes
HERE = "127.0.0.1"
SPREAD = "spread"  # likewise, whether a replica is on several nodes
ANYWHERE = "0.0.0.0"  # noqa: S104 - other nodes reach the replicas, which ask for a token
_STOP_SECONDS = 30.0

_STATES = {
    "RUNNING": PoolState.UP,
    "DEPLOYING": PoolState.BUSY,
    "UNHEALTHY": PoolState.BUSY,  # Serve replaces its replicas
    "DELETING": PoolState.BUSY,
}


@dataclass(frozen=True, slots=True)
class ServeReplica:
    """A replica as Serve sees it."""

    id: str
    state: str
    node: str


@dataclass(frozen=True, slots=True)
class ServeApplication:
    """An application, which is a revision of an endpoint, as Serve sees it.

    `state` is the application's, `status` and `message` are those of its one deployment. `key` is
    the attempt that deployed it, `urls` are the base URLs at which its models answer, and
    `replicas_at` those of the replicas themselves: others where engines are servers. `deployed`
    is when it was asked for (seconds, epoch); `spread` whether a replica is on several nodes.
    """

    state: str
    status: str
    message: str
    key: str
    pool: str
    replicas: tuple[ServeReplica, ...]
    urls: tuple[str, ...]
    replicas_at: tuple[str, ...] = ()
    deployed: float = 0.0
    spread: bool = False

    @property
    def complete(self) -> bool:
        """Whether all of its replicas run, and it is known where they answer."""
        return self.status == "HEALTHY" and 0 < len(self.running) <= len(self.urls)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Names of the nodes that its replicas hold, each once."""
        held = (nodes_of(replica) if self.spread else (replica.node,) for replica in self.running)
        return tuple(dict.fromkeys(node for nodes in held for node in nodes))

    @property
    def running(self) -> tuple[ServeReplica, ...]:
        """Replicas that answer."""
        return tuple(replica for replica in self.replicas if replica.state == "RUNNING")

    @property
    def error(self) -> str:
        """The traceback of the replica that failed last; empty where none did."""
        return self.message.partition("Error:\n")[2]


def applications() -> Mapping[str, ServeApplication] | None:
    """Return what runs, or `None` where Serve was not started."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return None
    details: dict[str, Any] = client.get_serve_details()
    names = cluster_tables.names()
    host = str((details.get("http_options") or {}).get("host") or ANYWHERE)
    groups = {group["app_name"]: group for group in details["target_groups"]}
    return {
        name: _application(application, names, groups.get(name), host)
        for name, application in details["applications"].items()
    }


def nodes_of(replica: ServeReplica) -> tuple[str, ...]:
    """Return the nodes that a replica holds: its own first, then those of its group."""
    names = cluster_tables.names()
    held = [
        names.get(node, node)
        for group in cluster_tables.groups()
        if group.name.endswith(f"#{replica.id}") and group.created
        for node in group.nodes
    ]
    return tuple(dict.fromkeys((replica.node, *held)))


def forget_earlier_clusters() -> None:
    """Have Serve be looked for anew: it keeps whom it met by the number of a job of Ray.

    The jobs of two clusters, of which this process was in one after the other, have equal numbers.
    """
    _set_global_client(None)


def running() -> Any:  # noqa: ANN401 - Serve's own client, which has no public type
    """Return the client of the Serve that runs on this cluster; `None` where none does."""
    return _get_global_client(raise_if_no_controller_running=False)


def listening(
    nodes: Callable[[], Iterable[Node]] = cluster_tables.live,
    client_of: Callable[[], Any] = running,
    own: Callable[[], Collection[str]] | None = None,
) -> str:
    """Return where replicas listen: as a Serve that runs was told, else by where the nodes are.

    On loopback where every node of the cluster is on this host; on all interfaces else. `nodes`
    are those that live, `own` the addresses of this host.

    Raises:
        ServingError: Serve listens on loopback, and there are nodes on other hosts by now.
    """
    hosts = {node.host for node in nodes()}
    elsewhere = sorted(hosts - set((own or own_addresses)()))
    client = client_of()
    if client is None:
        return ANYWHERE if elsewhere else HERE
    options: dict[str, Any] = client.get_serve_details().get("http_options") or {}
    host = str(options.get("host") or ANYWHERE)
    if host == HERE and elsewhere:
        raise ServingError(
            f"Ray Serve listens on loopback, where nobody reaches the node at {elsewhere[0]!r}: "
            "undeploy all endpoints, which stops it, and deploy them again"
        )
    return HERE if host == HERE else ANYWHERE


def own_addresses() -> set[str]:
    """Return all addresses of this host."""
    interfaces = psutil.net_if_addrs().values()
    return {address.address.partition("%")[0] for addresses in interfaces for address in addresses}


def stop() -> None:
    """Stop Serve. Its own call is retried by Ray while the controller dies, and prints so."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    ending = client._controller.graceful_shutdown.options(max_task_retries=0)  # noqa: SLF001 - see above
    with suppress(RayActorError, GetTimeoutError):
        ray.get(ending.remote(), timeout=_STOP_SECONDS)
    serve.shutdown()


def status(
    application: ServeApplication,
    replacement: Replacement | None = None,
    misplaced: tuple[str, ...] = (),
) -> RevisionStatus:
    """Return an application as a revision."""
    return RevisionStatus(
        pool=application.pool,
        state=_STATES.get(application.state, PoolState.DOWN),
        urls=application.urls,
        starting=sum(
            replica.state == "STARTING" and bool(replica.node) for replica in application.replicas
        ),
        misplaced=misplaced,
        replacement=replacement,
    )


def addresses(group: Mapping[str, Any], host: str) -> tuple[str, ...]:
    """Return where the replicas of an application listen, each on a port of its own.

    Serve tells the address of the machine, which is not where one on loopback listens. Where no
    replica runs it names its proxy in their place, which has nobody to hand a request to either.
    """
    prefix = group["route_prefix"]
    replicas = (
        target for target in group["targets"] if not target["name"].startswith(SERVE_PROXY_NAME)
    )
    places = ((host if host == HERE else target["ip"], target["port"]) for target in replicas)
    return tuple(f"http://{ip}:{port}{prefix}" for ip, port in places)


class EngineAddresses:
    """Where the engines of live replicas listen that are servers of their own.

    `ask` is called once for each replica that is there, until it says an address.
    """

    def __init__(self, ask: Callable[[str], str] = address_of) -> None:
        """Know none yet."""
        self._ask = ask
        self.addresses: dict[str, dict[str, str]] = {}

    def of(self, group: Mapping[str, Any]) -> tuple[str, ...]:
        """Return those of an application, as Serve tells load balancers of it."""
        known = self.addresses.setdefault(group["app_name"], {})
        replicas = [target["name"] for target in group["targets"]]
        for gone in known.keys() - set(replicas):
            del known[gone]
        for name in replicas:
            if name not in known and (url := self._ask(name.rpartition("#")[2])):
                known[name] = url
        return tuple(known[name] for name in replicas if name in known)


_engines = EngineAddresses()


def _application(
    details: Mapping[str, Any],
    names: Mapping[str, str],
    group: Mapping[str, Any] | None,
    host: str,
) -> ServeApplication:
    engine = details["deployments"].get(DEPLOYMENT, {})
    config = engine.get("deployment_config", {})
    own = addresses(group, host) if group else ()
    serves = bool((config.get("user_config") or {}).get(SERVER))
    replicas = tuple(
        ServeReplica(r["replica_id"], _word(r["state"]), names.get(r.get("node_id", ""), ""))
        for r in engine.get("replicas", ())
    )
    return ServeApplication(
        state=_word(details["status"]),
        status=_word(engine.get("status", "")),
        message=str(engine.get("message", "")),
        key=str((config.get("user_config") or {}).get("key", "")),
        pool=_pool(config),
        replicas=replicas,
        urls=_engines.of(group) if serves and group else own,
        replicas_at=own,
        deployed=float(details.get("last_deployed_time_s") or 0.0),
        spread=bool((config.get("user_config") or {}).get(SPREAD)),
    )


def _pool(config: Mapping[str, Any]) -> str:
    """Return the pool of a deployment: where it says none, by the nodes that it asks for."""
    user_config = config.get("user_config") or {}
    labels = (config.get("ray_actor_options") or {}).get("label_selector") or {}
    return str(user_config.get(POOL) or labels.get("pool", ""))


def _word(state: object) -> str:
    """Return the name of a state, which Serve gives as an enumeration or as its value."""
    return str(getattr(state, "value", state))
