"""What endpoints are served with: their store, replicas, the gateway as others see it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.core.endpoints import Deployment
from orchestrator.core.settings import Settings
from orchestrator.ports import EndpointStore, Serving, Traffic
from orchestrator.wiring.adapters import artifact_store, clock, database, variable

if TYPE_CHECKING:
    from orchestrator.adapters.rayserve import RayServing


def endpoint_store(at: Path) -> EndpointStore:
    """Return the store of endpoints of home `at`: the same database."""
    from orchestrator.adapters.event_store import SqlEventStore

    return SqlEventStore(database(at))


def serving(found: Settings, at: Path, address: str) -> Serving:
    """Return where endpoints are deployed, revision by revision."""
    if found.cluster.kind == "local":
        from orchestrator.adapters.no_serving import NoServing

        return NoServing()
    from orchestrator.control.rollouts import Rollouts

    gateway = traffic(f"http://127.0.0.1:{found.cluster.serve_port}")
    return Rollouts(replicas(address), endpoint_store(at), gateway, clock())


def replicas(address: str) -> RayServing:
    """Return what deploys single revisions on the cluster at `address`."""
    from orchestrator.adapters.rayserve import RayServing

    return RayServing(address, fetch_model, clock)


def traffic(gateway: str) -> Traffic:
    """Return the view of the gateway at that address."""
    from orchestrator.adapters.gateway import GatewayTraffic

    return GatewayTraffic(gateway)


def served_models(address: str, key_variable: str) -> Sequence[str] | None:
    """Return the models that a server outside lists; `None` where it lists none to us.

    Raises:
        ServingError: Nobody answers there.
    """
    from orchestrator.adapters import openai_server

    return openai_server.models(address, variable(key_variable) if key_variable else "")


def forget_endpoints(at: Path, reason: str) -> None:
    """Retire all revisions whose cluster was stopped."""
    from orchestrator.control.revisions import end

    store = endpoint_store(at)
    for life in store.endpoints().values():
        if life.live and all(revision.deployment for revision in life.live):
            end(store, life, reason, clock().now())


def fetch_model(deployment: Deployment) -> Path:
    """Return the local, verified folder of the model that a replica serves."""
    return artifact_store(deployment.storage).fetch(deployment.model)
