"""What runs in a replica: the verified model folder, the engine, an HTTP application around it."""

from __future__ import annotations

import inspect
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from ray import cloudpickle, serve

from orchestrator.adapters.rayserve import replica_chips, secret_masking
from orchestrator.adapters.rayserve.scaling import HELD
from orchestrator.adapters.rayserve.weights import ServedWeights, with_weights
from orchestrator.core.endpoints.life import Deployment
from orchestrator.core.errors import ServingError
from orchestrator.emulation import provide
from orchestrator.engine import Engine
from orchestrator.node import node_identity, software
from orchestrator.node.job_import import extend_path, import_path, load_job, use_shipped
from orchestrator.node.process_hardware import hardware_of
from orchestrator.node.software import Sealed
from orchestrator.ports import Clock

Fetch: TypeAlias = Callable[[Deployment], Path]
MakeClock: TypeAlias = Callable[[], Clock]


def sealed(deployment: Deployment, *values: object) -> Sealed:
    """Return what a process is sent that is to work for `deployment`."""
    content = cloudpickle.dumps((deployment, *values))
    return software.sealed(content, deployment.packages, deployment.shipped)


def code_of(deployment: Deployment, fetch: Fetch) -> Sequence[str]:
    """Return the folders of the code of `deployment`, as they are on the import path from now."""
    folders = import_path(
        deployment.code, deployment.shipped, lambda code: fetch(replace(deployment, model=code))
    )
    (use_shipped if deployment.shipped else extend_path)(folders)
    return folders


def make_engine(deployment: Deployment, folder: Path, fetch: Fetch) -> Engine:
    """Return the engine of `deployment`, from an allowed package, over the model in `folder`.

    Raises:
        JobError: It is in no allowed package, or is not there.
        ArtifactError: Its code can't be had.
    """
    code = code_of(deployment, fetch)
    if deployment.pool.emulated:
        provide(deployment.pool, deployment.needs)
    engine_class: Any = load_job(
        deployment.endpoint.engine,
        deployment.packages,
        code,
        shipped=deployment.shipped is not None,
    )
    hardware = hardware_of(deployment.pool, deployment.needs)
    options = dict(deployment.endpoint.engine_options)
    if "version" in inspect.signature(engine_class).parameters:
        options.setdefault("version", deployment.weights)
    engine: Engine = engine_class(folder, hardware, **options)
    return engine


@serve.ingress()
class Replica:
    """One engine process of an endpoint. Ray makes it on a node of the pool."""

    def __init__(self, parcel: Sealed) -> None:
        deployment: Deployment
        fetch: Fetch
        clock: MakeClock
        secrets: Mapping[str, str]
        deployment, fetch, clock, secrets = software.opened(parcel, platform.node)
        secret_masking.install(secrets)
        self._name = deployment.endpoint.name
        self._token = deployment.token
        self._clock = clock()
        self._refuse(deployment)
        replica_chips.show(deployment)
        with secret_masking.masked_errors(secrets):
            self._engine = make_engine(deployment, fetch(deployment), fetch)
        self._version = deployment.weights
        self._weights = ServedWeights(deployment, fetch, getattr(self._engine, "update", None))

    def _refuse(self, deployment: Deployment) -> None:
        """Refuse a node that was not qualified.

        Raises:
            ServingError: This is such a node.
        """
        strange = node_identity.objection(deployment.pool, deployment.measured, platform.node)
        if strange:
            raise ServingError(strange)

    def reconfigure(self, config: object) -> None:
        """Take the user config: it names the attempt to those who ask Serve, nothing more."""

    def check_health(self) -> None:
        """Raise when the engine can't serve: Serve then replaces the replica."""
        health = getattr(self._engine, "health", None)
        if health is not None and (why := health()):
            raise RuntimeError(f"the engine is broken: {why}")

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Return what Serve scales by beside requests; what predicts holds no tokens."""
        statistics: dict[str, float] = getattr(self._engine, "statistics", dict)()
        return {HELD: float(statistics.get(HELD, 0.0))}

    def __serve_build_asgi_app__(self) -> Any:  # noqa: ANN401 - Serve's own name for it; an ASGI application
        """Return the application that answers HTTP."""
        from orchestrator.serving.http.request_limits import GatewayLimits
        from orchestrator.serving.replica.app import replica

        serves = replica(
            self._engine,
            self._name,
            self._clock,
            token=self._token,
            version=self._version,
            limits=GatewayLimits(body_bytes=sys.maxsize),  # it is the gateway's to limit
        )
        return with_weights(serves, self._weights, self._token)

    def __del__(self) -> None:
        """Close the engine; there is none where making it failed."""
        engine = getattr(self, "_engine", None)
        if engine is not None:
            engine.close()
