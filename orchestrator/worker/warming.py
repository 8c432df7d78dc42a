"""What a process does that stands by for an attempt: all imports, before it is asked to work."""

from __future__ import annotations

import importlib

from orchestrator.messages import AttemptRequest
from orchestrator.node.job_import import import_request
from orchestrator.ports import ArtifactStore


def warm(request: AttemptRequest, store: ArtifactStore) -> None:
    """Import what an attempt like `request` needs."""
    package = request.pool.accelerator.torch_package
    if request.needs.workers > 1:
        importlib.import_module("torch.distributed")
    if package and request.needs.devices and not request.pool.emulated:
        importlib.import_module(package)
    import_request(request, store)
