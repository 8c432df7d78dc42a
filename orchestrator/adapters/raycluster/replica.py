"""What runs in a replica: the model folder fetched, the engine made, the gateway around it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from orchestrator.core.errors import ServingError
from orchestrator.job import Engine, Hardware
from orchestrator.ports import Clock, Deployment


def build(
    deployment: Deployment, fetch: Callable[[Deployment], Path], clock: Callable[[], Clock]
) -> Any:  # noqa: ANN401 - an ASGI application
    """Return the application that serves `deployment` in this process.

    Raises:
        ServingError: The engine can't be found.
        ArtifactError: The model is not what was trained.
    """
    from orchestrator.serving.gateway import gateway

    for folder in reversed(deployment.code):
        if folder not in sys.path:
            sys.path.insert(0, folder)
    make = engine_class(deployment.endpoint.engine, deployment.packages)
    options = dict(deployment.endpoint.engine_options)
    engine = make(fetch(deployment), hardware(deployment), **options)
    return gateway(engine, deployment.endpoint.name, clock())


def engine_class(name: str, packages: Sequence[str]) -> Callable[..., Engine]:
    """Return the engine called `name`.

    Raises:
        ServingError: It is outside of `packages`, or is not there.
    """
    if not any(name.startswith(f"{package}.") for package in packages):
        allowed = ", ".join(packages)
        message = f"engine {name!r} is in no allowed package ({allowed}); see jobs.packages"
        raise ServingError(message)
    module_name, _, attribute = name.rpartition(".")
    found = getattr(importlib.import_module(module_name), attribute, None)
    if not callable(found):
        message = f"engine {name!r} is no class of {module_name!r}"
        raise ServingError(message)
    return found  # type: ignore[no-any-return] # callable() says no more


def hardware(deployment: Deployment) -> Hardware:
    """Return what a replica of `deployment` runs on; its first chip is the one it sees."""
    pool = deployment.pool
    on_host = pool.device == "cpu" or deployment.needs.devices == 0
    return Hardware(
        pool=pool.name,
        accelerator=pool.accelerator.name,
        vendor=pool.accelerator.vendor,
        device="cpu" if on_host else f"{pool.device}:0",
        backend=pool.backend,
        formats=pool.accelerator.formats,
        memory_gb=pool.accelerator.memory_gb,
        emulated=pool.emulated,
    )
