"""A model of two small layers, and the embedded engine that serves it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engines.embedded import EmbeddedEngine
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(folder: Path) -> Iterator[EmbeddedEngine]:
    engine = EmbeddedEngine(folder, HARDWARE, threads=1)
    yield engine
    engine.close()
