"""The embedded engine against vLLM, each in a process of its own.

Run it where vLLM is: `.venv-vllm/bin/python -m tests.benchmarks vllm`, after `make vllm`. A random
Llama of 125 million weights in float32.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from orchestrator.job import Sampling
from tests.benchmarks.table import Row, compare
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama

AT_ONCE = (1, 8, 32)
PROMPT, ANSWER = 128, 32
SHAPE: dict[str, Any] = {
    "vocab_size": 16384,
    "hidden_size": 768,
    "intermediate_size": 2048,
    "num_hidden_layers": 15,
    "num_attention_heads": 12,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "initializer_range": 0.02,
    "tie_word_embeddings": True,
}
TELL = {"unit": "tokens/s", "goal": "ratio >= 0.8"}


def rows() -> list[Row]:
    """Let one engine answer, then the other."""
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not in this environment (make vllm): nothing to compare with")
        return []
    with TemporaryDirectory() as temporary:
        folder = save_tiny_llama(Path(temporary), **SHAPE)
        ours, theirs = (_in_its_process(name, folder) for name in ("Embedded", "Vllm"))
    speeds = [
        compare(f"{n} at once, 125M, embedded engine against vLLM", ours[key], theirs[key], **TELL)
        for n, key in ((n, f"{n}") for n in AT_ONCE)
    ]
    start = compare("start of the engine's process", ours["start"], theirs["start"])
    memory = {"unit": "GB", "goal": "ratio <= 0.33"}
    return [*speeds, start, compare("memory", ours["memory"], theirs["memory"], **memory)]


def _in_its_process(name: str, folder: Path) -> Mapping[str, float]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_measured, name, folder).result()


def _measured(name: str, folder: Path) -> dict[str, float]:
    began = perf_counter()
    engine = _made(name, folder)
    found = {"start": perf_counter() - began}
    for at_once in AT_ONCE:
        asyncio.run(_rate(engine, at_once, 4))  # warm
        found[f"{at_once}"] = asyncio.run(_rate(engine, at_once, ANSWER))
    engine.close()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found["memory"] = int(status.partition("VmHWM:")[2].split()[0]) / 1e6
    return found


def _made(name: str, folder: Path) -> Any:
    if name == "Embedded":
        from jobs.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(folder, HARDWARE, max_context=512)
    from jobs.engines.vllm import VllmEngine

    return VllmEngine(folder, HARDWARE, max_context=512, cache_gb=0.5)


async def _rate(engine: Any, at_once: int, answer: int) -> float:
    """Return the tokens per second of answers that are asked for at once."""

    async def one(number: int) -> int:
        prompt = [(31 * number + 7 * place) % 16000 for place in range(PROMPT)]
        sampling = Sampling(max_tokens=answer, temperature=0)
        return len([piece async for piece in engine.generate(prompt, sampling)])

    began = perf_counter()
    made = await asyncio.gather(*map(one, range(at_once)))
    return sum(made) / (perf_counter() - began)
