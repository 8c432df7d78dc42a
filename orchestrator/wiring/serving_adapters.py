"""What endpoints are served with: their store, replicas, the gateway as others see it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.endpoints.life import Deployment, EndpointLife
from orchestrator.core.errors import ArtifactError, NotFoundError, ServingError, shown
from orchestrator.core.settings import PATIENT, GatewaySettings, Settings
from orchestrator.core.spec.outside_servers import Outside
from orchestrator.core.spec.stages import Json
from orchestrator.ports import (
    EventLog,
    Serving,
    Traffic,
)
from orchestrator.wiring.adapters import (
    DATABASE_VARIABLE,
    clock,
    database,
    variable,
)
from orchestrator.wiring.home_folder import home_id
from orchestrator.wiring.secret_values import secret
from orchestrator.wiring.storage import artifact_store
from orchestrator.wiring.user import machine

if TYPE_CHECKING:
    from orchestrator.adapters.rayserve import RayServing
    from orchestrator.serving.gateway.tracing import Tracing
    from orchestrator.serving.http.request_limits import GatewayLimits

OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def serving(settings: Settings, home: Path, address: str) -> Serving:
    """Return where endpoints are deployed, revision by revision."""
    if settings.cluster.kind == "local":
        from orchestrator.adapters.no_serving import NoServing

        return NoServing()
    from orchestrator.endpoints.rollout import Rollouts

    deployed = replicas(home, address)
    return Rollouts(deployed, database(home), traffic(home), clock(), home_id(home))


def replicas(home: Path, address: str) -> RayServing:
    """Return what deploys single revisions on the cluster at `address`."""
    from orchestrator.adapters.raycluster import access, managed_ray
    from orchestrator.adapters.rayserve import ClusterEntry, RayServing
    from orchestrator.endpoints.unused_nodes import UnusedNodes

    ours = managed_ray.find(home)
    managed = ours is not None and ours.address == address
    return RayServing(
        address,
        fetch_model,
        clock,
        entry=ClusterEntry(managed_cluster(home) if managed else "", access.admit),
        unused=UnusedNodes(database(home), clock()).of,
        secret=secret,
    )


def serving_cluster(home: Path) -> str:
    """Return the address of the cluster that `home` serves from.

    Raises:
        ServingError: It is not running.
    """
    from orchestrator.adapters import gateway_service
    from orchestrator.adapters.raycluster import managed_ray

    ours = managed_ray.find(home)  # which lets this process in
    address = gateway_service.cluster(home) or (ours.address if ours else "")
    address = address or variable("RAY_ADDRESS")
    if not address:
        raise ServingError("the cluster is not running; `orchestrator up` starts it")
    return address


def shares_database() -> bool:
    """Return whether the environment names a database, which other homes may use too."""
    return bool(variable(DATABASE_VARIABLE))


def managed_cluster(home: Path) -> str:
    """Return the identity of the cluster that `home` starts, and may start again."""
    return f"home-{home_id(home)}"


def traffic(home: Path) -> Traffic:
    """Return the view of all gateways that share the database of `home`."""
    from orchestrator.adapters.gateway_client import GatewayTraffic

    return GatewayTraffic(database(home))


def gateway_settings(text: str) -> GatewaySettings:
    """Return the settings of a gateway as whoever started it wrote them."""
    from orchestrator.adapters import gateway_service

    return gateway_service.loaded(text)


def gateway_limits(settings: GatewaySettings) -> GatewayLimits:
    """Return the limits of a gateway; what its settings leave open is as ever."""
    from orchestrator.adapters import gateway_service

    return gateway_service.limits_of(settings)


def gateway_url(home: Path) -> str:
    """Return the address of a gateway that this host can ask: its own, else the oldest.

    Raises:
        ServingError: There is none, or none that can be asked from here.
    """
    mine = machine()
    live = [gateway for gateway in database(home).gateways() if gateway.live]
    near = [gateway for gateway in live if gateway.reachable(mine)]
    own = [gateway for gateway in near if gateway.host == mine]
    for gateway in (*own, *near):
        return gateway.url
    if live:
        where = f"the gateway at {live[0].url} answers its own host {live[0].host_name!r} alone"
        hint = "set gateway.host=0.0.0.0 there, or gateway.url to what others reach it by"
        raise ServingError(f"{where}; {hint}, and start it again")
    raise ServingError(f"no gateway runs; `{way_up(home)}` starts one")


def way_up(home: Path) -> str:
    """Return the command that brings up what serves: it names the cluster that endpoints are on.

    Without that name `orchestrator up` would start a cluster of this machine.
    """
    store = database(home)
    deployed = (r.deployment for life in store.endpoints().values() for r in life.live)
    for run in dict.fromkeys(deployment.run for deployment in deployed if deployment):
        with suppress(NotFoundError):
            cluster = store.header(run).config.get("cluster")
            address = cluster.get("address") if isinstance(cluster, Mapping) else ""
            if address and address != variable("RAY_ADDRESS"):
                return f"RAY_ADDRESS={address} orchestrator up"
    return "orchestrator up"


def outside_key(server: Outside) -> str:
    """Return the API key of a server outside, as its file or variable has it now.

    Raises:
        ServingError: The file can't be read, or it or the variable holds no key.
    """
    if server.key_variable and not variable(server.key_variable):
        what = f"the environment variable {shown(server.key_variable)} is empty here"
        raise ServingError(f"{what}; set it and start the gateway again, or use --key-file")
    if not server.key_file:
        return variable(server.key_variable) if server.key_variable else ""
    where = f"the key file {shown(server.key_file)}"
    try:
        key = Path(server.key_file).read_text("utf-8").strip()
    except OSError as error:
        raise ServingError(f"{where} can't be read: {error.strerror}; mend it") from error
    except UnicodeDecodeError as error:
        raise ServingError(f"{where} is no text; write the server's key into it") from error
    if not key:
        raise ServingError(f"{where} is empty; write the server's key into it")
    if not (key.isascii() and key.isprintable()):
        raise ServingError(f"{where} holds more than one line of ASCII; leave the key alone there")
    return key


def tracing() -> Tracing | None:
    """Return what makes spans, where OpenTelemetry's own variables name who gets them."""
    named = variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or variable(OTLP_VARIABLE)
    if not named or variable("OTEL_TRACES_EXPORTER") == "none":
        return None
    from orchestrator import __version__
    from orchestrator.serving.gateway.tracing import SERVICE, Tracing

    return Tracing(variable("OTEL_SERVICE_NAME") or SERVICE, __version__)


def served_models(server: Outside) -> Sequence[str] | None:
    """Return the models that a server outside lists; `None` where it lists none to us.

    Raises:
        ServingError: Nobody answers there.
    """
    from orchestrator.adapters import openai_server

    return openai_server.models(server, outside_key(server))


@dataclass(frozen=True, slots=True)
class Outage:
    """What keeps endpoints from answering: `ours` those on the cluster, `all` outside ones too.

    Both are empty where nothing is in the way. `elsewhere` is whether others share the database,
    so that a gateway of theirs may answer.
    """

    ours: str = ""
    all: str = ""
    elsewhere: bool = False


def outage(home: Path) -> Outage:
    """Return what is not running of what the endpoints of `home` need."""
    from orchestrator.adapters import gateway_service
    from orchestrator.adapters.raycluster import managed_ray

    here = managed_ray.find(home) is not None
    served = gateway_service.cluster(home)
    if served is not None:
        lost = not gateway_service.answers(served)
        return Outage(ours="the cluster is not running" if lost else "")
    if variable(DATABASE_VARIABLE):
        live = any(gateway.live for gateway in database(home).gateways())
        return Outage(elsewhere=True) if live else Outage(all="no gateway runs")
    foreign = here or variable("RAY_ADDRESS")
    why = "the gateway is not running" if foreign else "cluster and gateway are not running"
    return Outage(ours=why, all=why)


def endpoints_here(home: Path) -> Sequence[EndpointLife]:
    """Return the endpoints whose live revisions all run on the cluster that `home` starts."""
    store = database(home)
    return [
        life
        for life in store.endpoints().values()
        if life.live
        and all(r.deployment and _is_managed(home, store, r.deployment) for r in life.live)
    ]


def forget_endpoints(home: Path, reason: str) -> None:
    """Retire all endpoints whose cluster, the one of `home`, was stopped."""
    from orchestrator.endpoints.revisions import end

    for life in endpoints_here(home):
        store = database(home)
        end(store, life, reason, store.now())


def _is_managed(home: Path, events: EventLog, deployment: Deployment) -> bool:
    """Return whether a deployment is on the cluster that `home` starts.

    The first version did not store that: there it is known by the config of the run, and where
    others share the database it is nobody's.
    """
    if deployment.cluster:
        return deployment.cluster == managed_cluster(home)
    if variable(DATABASE_VARIABLE):
        return False
    try:
        cluster = events.header(deployment.run).config.get("cluster")
    except NotFoundError:
        return True
    return not (isinstance(cluster, Mapping) and cluster.get("address"))


def model_config(storage: str, model: ArtifactRef) -> Mapping[str, Json]:
    """Return the `config.json` of a model in the store; nothing where it can't be read."""
    try:
        config = json.loads(artifact_store(storage).read(model, "config.json"))
    except (ArtifactError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def fetch_model(deployment: Deployment) -> Path:
    """Return the local, verified folder of the model that a replica serves.

    In the place of the model may be the code of its engine, which is unpacked.
    """
    patience = PATIENT.storage if deployment.patience is None else deployment.patience
    store = artifact_store(deployment.storage, clock(), patience, room=deployment.room)
    model = deployment.model
    shipped = deployment.shipped
    return store.unpack(model) if shipped and model == shipped.archive else store.fetch(model)
