"""One pipeline, two kinds of hardware: plan, launch and review pipelines over mixed pools."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.client import endpoint, endpoints, launch, plan, run, runs
    from orchestrator.core.spec.hardware import Accelerator, Fleet, Pool, Role
    from orchestrator.core.spec.policy import Gate, Limits, Recovery, Rollout
    from orchestrator.core.spec.stages import Endpoint, Needs, Pipeline, Stage

__version__ = "0.2.0"

_SPEC = "orchestrator.core.spec"
_FROM = {
    "orchestrator.client": ("endpoint", "endpoints", "launch", "plan", "run", "runs"),
    f"{_SPEC}.hardware": ("Accelerator", "Fleet", "Pool", "Role"),
    f"{_SPEC}.policy": ("Gate", "Limits", "Recovery", "Rollout"),
    f"{_SPEC}.stages": ("Endpoint", "Needs", "Pipeline", "Stage"),
}
_HOMES = {name: module for module, names in _FROM.items() for name in names}

__all__ = [
    "Accelerator",
    "Endpoint",
    "Fleet",
    "Gate",
    "Limits",
    "Needs",
    "Pipeline",
    "Pool",
    "Recovery",
    "Role",
    "Rollout",
    "Stage",
    "endpoint",
    "endpoints",
    "launch",
    "plan",
    "run",
    "runs",
]


def __getattr__(name: str) -> object:
    """Import a name when it is first used: a command pays only for what it needs."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
