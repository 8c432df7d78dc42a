"""The embedded engine on an emulated chip: it answers as on the CPU, and is updated as there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from jobs.engines.embedded import EmbeddedEngine
from orchestrator.engine import Sampling
from tests.emulation.interpreter import Interpreter
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama

pytestmark = pytest.mark.timeout(300)  # imports, mostly, which a busy machine stretches
PROMPTS = ["2+2=", "the quick brown fox"]
GREEDY = Sampling(max_tokens=8, temperature=0)


async def tokens(engine: EmbeddedEngine) -> list[list[int]]:
    """Ask all prompts at once."""

    async def one(prompt: str) -> list[int]:
        return [piece.token async for piece in engine.generate(engine.encode(prompt), GREEDY)]

    return await asyncio.gather(*map(one, PROMPTS))


def test_a_device_answers_as_the_cpu_does_before_and_after_an_update(
    npu: Interpreter, tmp_path: Path
) -> None:
    folders = [save_tiny_llama(tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    expected = []
    for folder in folders:
        engine = EmbeddedEngine(folder, HARDWARE, threads=1)
        expected.append(asyncio.run(tokens(engine)))
        engine.close()
    found = npu(f"""
install()
import asyncio
from tests.emulation.test_engine import EmbeddedEngine, HARDWARE, tokens
engine = EmbeddedEngine(Path({str(folders[0])!r}), replace(HARDWARE, device="npu:0"), threads=1)
result = [str(engine._model.device), asyncio.run(tokens(engine))]
engine.update(Path({str(folders[1])!r}), "v2")
result += [asyncio.run(tokens(engine)), engine.version]
engine.close()
""")
    assert found == ["npu:0", *expected, "v2"]
