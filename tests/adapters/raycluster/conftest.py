"""The cluster that a test drives: its workers run the product's own, or what `run` says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.ports import Worker
from orchestrator.wiring import run_worker


@pytest.fixture
def run() -> Worker:
    return run_worker


@pytest.fixture
def cluster(ray_address: str, run: Worker) -> Iterator[RayCluster]:
    cluster = RayCluster(ray_address, run)
    yield cluster
    cluster.close()
