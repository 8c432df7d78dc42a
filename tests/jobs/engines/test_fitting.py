"""vLLM serves where it computes rightly; everywhere else the embedded engine does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.engines.embedded import EmbeddedEngine
from jobs.engines.fitting import FittingEngine
from jobs.engines.vllm import VllmEngine
from orchestrator.engine import Sampling
from tests.jobs.engines.foreign import with_vllm
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"))  # heads of 16: not for vLLM


@pytest.fixture
def engine(folder: Path) -> Iterator[FittingEngine]:
    made = FittingEngine(folder, HARDWARE, version="v1", slots=4, max_context=64)
    yield made
    made.close()


def test_the_embedded_engine_serves_what_vllm_can_not(engine: FittingEngine) -> None:
    assert isinstance(engine.chosen, EmbeddedEngine)
    assert (engine.version, engine.max_context, engine.vocabulary) == ("v1", 64, 257)
    assert not hasattr(engine, "predict")

    async def ask() -> int:
        prompt, sampling = engine.encode("hello"), Sampling(max_tokens=3, temperature=0)
        return len([piece async for piece in engine.generate(prompt, sampling)])

    assert asyncio.run(ask()) == 3


def test_what_neither_can_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no model folder"):
        FittingEngine(tmp_path / "none", HARDWARE)


@with_vllm
def test_why_vllm_does_not_serve_is_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = FittingEngine(folder, HARDWARE, max_context=64)
    assert isinstance(made.chosen, EmbeddedEngine)
    assert "the embedded engine serves, not vLLM: " in caplog.text
    made.close()


@with_vllm
def test_vllm_serves_what_it_can(tmp_path: Path) -> None:
    able = save_tiny_llama(tmp_path, hidden_size=128)
    made = FittingEngine(able, HARDWARE, max_context=64)
    assert isinstance(made.chosen, VllmEngine)
    made.close()
