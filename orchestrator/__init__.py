"""One pipeline, two kinds of hardware: plan, launch and review pipelines over mixed pools."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.client import endpoint, launch, live_endpoints, plan, run, runs
    from orchestrator.client.planned import RunPlan
    from orchestrator.client.running import LiveRun
    from orchestrator.client.served import LiveEndpoint
    from orchestrator.client.upkeep import (
        LivePools,
        cost,
        deploy,
        deploy_outside,
        doctor,
        drain,
        gc,
        models,
        pools,
        promote,
        qualify,
        undrain,
    )
    from orchestrator.core.failures.kinds import Action, FailureKind
    from orchestrator.core.runs.states import AttemptState, RunState, StageState
    from orchestrator.core.spec.emulation import Emulation, Fault, FaultType
    from orchestrator.core.spec.hardware import Accelerator, Fleet, Pool, Role
    from orchestrator.core.spec.outside_servers import Outside
    from orchestrator.core.spec.policy import Gate, Limits, Recovery, Rollout, Watch
    from orchestrator.core.spec.stages import Endpoint, Needs, OnPool, Pipeline, Scale, Stage

__version__ = "0.2.0"

_FROM: Mapping[str, Sequence[str]] = {
    "orchestrator.client": ("endpoint", "launch", "live_endpoints", "plan", "run", "runs"),
    "orchestrator.client.planned": ("RunPlan",),
    "orchestrator.client.running": ("LiveRun",),
    "orchestrator.client.served": ("LiveEndpoint",),
    "orchestrator.client.upkeep": (
        "LivePools",
        "cost",
        "deploy",
        "deploy_outside",
        "doctor",
        "drain",
        "gc",
        "models",
        "pools",
        "promote",
        "qualify",
        "undrain",
    ),
    "orchestrator.core.failures.kinds": ("Action", "FailureKind"),
    "orchestrator.core.runs.states": ("AttemptState", "RunState", "StageState"),
    "orchestrator.core.spec.emulation": ("Emulation", "Fault", "FaultType"),
    "orchestrator.core.spec.hardware": ("Accelerator", "Fleet", "Pool", "Role"),
    "orchestrator.core.spec.outside_servers": ("Outside",),
    "orchestrator.core.spec.policy": ("Gate", "Limits", "Recovery", "Rollout", "Watch"),
    "orchestrator.core.spec.stages": (
        "Endpoint",
        "Needs",
        "OnPool",
        "Pipeline",
        "Scale",
        "Stage",
    ),
}
_HOMES = {name: module for module, names in _FROM.items() for name in names}

__all__ = [
    "Accelerator",
    "Action",
    "AttemptState",
    "Emulation",
    "Endpoint",
    "FailureKind",
    "Fault",
    "FaultType",
    "Fleet",
    "Gate",
    "Limits",
    "LiveEndpoint",
    "LivePools",
    "LiveRun",
    "Needs",
    "OnPool",
    "Outside",
    "Pipeline",
    "Pool",
    "Recovery",
    "Role",
    "Rollout",
    "RunPlan",
    "RunState",
    "Scale",
    "Stage",
    "StageState",
    "Watch",
    "cost",
    "deploy",
    "deploy_outside",
    "doctor",
    "drain",
    "endpoint",
    "gc",
    "launch",
    "live_endpoints",
    "models",
    "plan",
    "pools",
    "promote",
    "qualify",
    "run",
    "runs",
    "undrain",
]


def __getattr__(name: str) -> object:
    """Import a name when it is first used: a command pays only for what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
