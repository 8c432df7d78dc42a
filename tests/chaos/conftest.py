"""What tests of engine servers share."""

from __future__ import annotations

import pytest

from orchestrator.adapters.raycluster.machine import free_ports
from tests.chaos.vllm_server import Ports


@pytest.fixture(scope="module")
def ports() -> Ports:
    """Ports of the gateway, and of its figures."""
    free = free_ports()
    return next(free), next(free)
