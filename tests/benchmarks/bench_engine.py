"""The embedded engine against transformers' own generation, with 1, 8 and 32 requests at once.

All run a random Llama of 7 million weights, on the same number of threads, in turns; a yardstick
gets token ids and gives token ids, offline, while the engine answers event loops and makes text.
The limit of decoding is what reading weights and cache once a step takes at the speed of a copy.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from jobs.engines.embedded import EmbeddedEngine
from orchestrator.engine import Sampling
from tests.benchmarks.table import Row, compare
from tests.jobs.engines.tiny_llama import HARDWARE, save_tiny_llama

AT_ONCE = (1, 8, 32)
PROMPT, ANSWER = 128, 128
ROUNDS = 3
THREADS = 1
SHAPE: dict[str, Any] = {
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
CACHE_A_TOKEN = 8 * 2 * 4 * 32 * 4  # bytes: layers, keys and values, heads, size, float32
# What continuous batching of transformers needs on a CPU: its defaults take 21 GB.
BLOCKS = 64


def rows() -> list[Row]:
    """Generate in turns; then look at an engine process by itself."""
    torch.set_num_threads(THREADS)
    with TemporaryDirectory() as temporary:
        folder = save_tiny_llama(Path(temporary), **SHAPE)
        found = [row for at_once in AT_ONCE for row in _compared(folder, at_once)]
        start, memory = _alone(folder)
    return [
        *found,
        Row(name="start of an engine process, its imports included", ours=start, goal="seconds"),
        Row(name="memory of it after 32 answers", ours=memory, unit="GB", goal="ours <= 0.7"),
    ]


def prompts(at_once: int) -> list[list[int]]:
    """Return a prompt for each request, all different."""
    return [
        [(31 * number + 7 * place) % 4000 for place in range(PROMPT)] for number in range(at_once)
    ]


def _compared(folder: Path, at_once: int) -> list[Row]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    engine = EmbeddedEngine(folder, HARDWARE, threads=THREADS)
    given = prompts(at_once)
    ways: list[Callable[[], float]] = [
        lambda: asyncio.run(_answered(engine, given)),
        lambda: _generated(model, given),
        lambda: _batched(model, given),
    ]
    rounds = [[way() for way in ways] for _ in range(ROUNDS + 1)][1:]  # the first one warms up
    ours, static, continuous = (median(column) for column in zip(*rounds, strict=True))
    engine.close()
    weights = sum(weight.nbytes for weight in model.parameters())
    cache = at_once * (PROMPT + ANSWER / 2) * CACHE_A_TOKEN
    limit = at_once * _copied_a_second() / (weights + cache)
    name = f"{at_once} at once, embedded engine against"
    tell = {"unit": "tokens/s", "goal": "ratio > 1"}
    return [
        compare(f"{name} transformers generate, one static batch", ours, static, **tell),
        compare(f"{name} transformers continuous batching", ours, continuous, **tell),
        compare(f"{name} the memory bandwidth", ours, limit, unit="tokens/s"),
    ]


async def _answered(engine: EmbeddedEngine, given: Sequence[list[int]]) -> float:
    """Return the tokens per second of the engine, all requests at once."""

    async def one(prompt: list[int]) -> int:
        sampling = Sampling(max_tokens=ANSWER, temperature=0)
        return len([piece async for piece in engine.generate(prompt, sampling)])

    began = perf_counter()
    made = await asyncio.gather(*map(one, given))
    return sum(made) / (perf_counter() - began)


def _generated(model: Any, given: list[list[int]]) -> float:
    """Return the tokens per second of `generate`."""
    began = perf_counter()
    made = model.generate(torch.tensor(given), generation_config=_greedy())
    return (made.shape[1] - PROMPT) * len(given) / (perf_counter() - began)


def _batched(model: Any, given: list[list[int]]) -> float:
    """Return the tokens per second of transformers' continuous batching."""
    config = ContinuousBatchingConfig(num_blocks=BLOCKS, max_batch_tokens=512)
    began = perf_counter()
    made = model.generate_batch(
        given, generation_config=_greedy(), continuous_batching_config=config
    )
    tokens = sum(len(each.generated_tokens) for each in made.values())
    return tokens / (perf_counter() - began)


def _greedy() -> GenerationConfig:
    return GenerationConfig(
        max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False, pad_token_id=0
    )


def _copied_a_second() -> float:
    """Return the bytes that a copy reads and writes in a second."""
    source = torch.ones(1 << 26)
    target = torch.empty_like(source)
    target.copy_(source)
    times = []
    for _ in range(5):
        began = perf_counter()
        target.copy_(source)
        times.append(perf_counter() - began)
    return 2 * source.nbytes / median(times)


def _alone(folder: Path) -> tuple[float, float]:
    """Return the seconds until an engine serves in a process of its own, and its most GB."""
    began = perf_counter()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own_process:
        own_process.submit(_begin, folder).result()
        start = perf_counter() - began
        return start, own_process.submit(_most_memory).result()


def _begin(folder: Path) -> None:
    _own.append(EmbeddedEngine(folder, HARDWARE, threads=THREADS))


def _most_memory() -> float:
    engine = _own.pop()
    asyncio.run(_answered(engine, prompts(32)))
    engine.close()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1e6


_own: list[EmbeddedEngine] = []  # of a process that has nothing else
