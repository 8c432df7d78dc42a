"""A trained model that answers at an endpoint of this process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from jobs.engines.embedded import EmbeddedEngine
from orchestrator.serving.replica.app import replica
from tests.jobs.local_context import EMULATED, LocalContext
from tests.serving.http_server import FixedClock, serving


@pytest.fixture(scope="session")
def endpoint(undisturbed: LocalContext) -> Iterator[str]:
    engine = EmbeddedEngine(undisturbed.output, EMULATED, threads=1, version="v1")
    try:
        with serving(replica(engine, "sums", FixedClock())) as url:
            yield f"{url}/v1"
    finally:
        engine.close()
