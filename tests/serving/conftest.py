"""A replica around an engine that writes what it is told, and OpenAI's client of it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from orchestrator.serving.replica.app import replica
from tests.serving.http_server import FixedClock, serving
from tests.serving.writing import Writing


@pytest.fixture
def engine() -> Writing:
    return Writing()


@pytest.fixture
def url(engine: Writing) -> Iterator[str]:
    with serving(replica(engine, "echo", FixedClock())) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        yield client
