"""The embedded engine against vLLM, each in a process of its own.

Run it where vLLM is: `.venv-vllm/bin/python -m tests.benchmarks vllm`, after `make vllm`. A random
Llama of 125 million weights in float32.
"""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

from orchestrator.engine import Sampling
from tests.benchmarks.table import Row, compare
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama

AT_ONCE = (1, 8, 32)
PROMPT, ANSWER, WARM = 128, 32, 4
ROUNDS = 3
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
    """Let both engines answer, in turns."""
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not in this environment (make vllm): nothing to compare with")
        return []
    with TemporaryDirectory() as temporary, _process() as our_process, _process() as their_process:
        folder = save_tiny_llama(Path(temporary), **SHAPE)
        processes = (our_process, their_process)
        starts = [
            process.submit(_begin, name, folder).result()
            for process, name in zip(processes, ("Embedded", "Vllm"), strict=True)
        ]
        speeds = [_compared(processes, at_once) for at_once in AT_ONCE]
        memories = [process.submit(_end).result() for process in processes]
    return [
        *speeds,
        compare("start of the engine's process", *starts),
        compare("memory", *memories, unit="GB", goal="ratio <= 0.33"),
    ]


def _compared(processes: Sequence[ProcessPoolExecutor], at_once: int) -> Row:
    rounds = [
        [process.submit(_answered, at_once, answer).result() for process in processes]
        for answer in (WARM, *[ANSWER] * ROUNDS)
    ]
    ours, theirs = map(median, zip(*rounds[1:], strict=True))
    return compare(f"{at_once} at once, 125M, embedded engine against vLLM", ours, theirs, **TELL)


# --- in the process of an engine ----------------------------------------------------------------


def _process() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


def _begin(name: str, folder: Path) -> float:
    began = perf_counter()
    _own.append(_made(name, folder))
    return perf_counter() - began


def _answered(at_once: int, answer: int) -> float:
    return asyncio.run(_rate(_own[0], at_once, answer))


def _end() -> float:
    """Return the most memory that there was, GB."""
    _own.pop().close()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


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


_own: list[Any] = []  # the engine of this process
