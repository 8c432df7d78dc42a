"""The cache keeps to its budget, and a failed allocation ends one request and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from jobs.engines.cache import CacheFullError, SlotCache
from jobs.engines.cache_budget import budget, free_bytes
from jobs.engines.embedded import EmbeddedEngine
from orchestrator.engine import Piece, Sampling
from tests.jobs.engines.tiny_llama import HARDWARE


def filled(most: int | None = None) -> SlotCache:
    cache = SlotCache([None, None], 4096, torch.device("cpu"), most)
    cache.cover(0, [0], 1)
    for layer in cache.layers:
        layer.store(torch.ones(1, 2, 8), torch.ones(1, 2, 4))
    return cache


async def ask(engine: EmbeddedEngine, prompt: Sequence[int], tokens: int = 8) -> list[int] | str:
    pieces = engine.generate(prompt, Sampling(max_tokens=tokens, temperature=0))
    try:
        return [piece.token async for piece in pieces if isinstance(piece, Piece)]
    except RuntimeError as error:
        return str(error)


def test_it_knows_what_a_token_takes() -> None:
    assert filled().cell == 2 * 2 * (8 + 4) * 4


def test_it_grows_up_to_its_budget_and_no_further() -> None:
    cache = filled(1000)
    cache.reserve(4, 250)
    assert cache.shape == (4, 250)
    for rows, length in ((5, 201), (1, 1001)):
        with pytest.raises(CacheFullError, match="the cache of 1000 tokens has no room"):
            cache.reserve(rows, length)
        assert cache.shape == (4, 250)
    cache.reserve(1, 1000)
    assert cache.shape == (1, 1000)


def test_it_shrinks_when_little_of_it_is_used_and_keeps_what_it_holds() -> None:
    cache = filled(100_000)
    cache.reserve(20, 2000)
    cache.reserve(1, 10)
    rows, capacity = cache.shape
    assert rows * capacity < 1000
    assert all(bool((buffer[0, :, 0] == 1).all()) for x in cache.layers for buffer in x.buffers)
    cache.reserve(20, 2000)
    cache.reserve(0, 0)
    assert cache.shape == (0, 0)


def test_a_batch_that_has_its_size_allocates_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = filled(100_000)
    cache.reserve(8, 100)
    monkeypatch.setattr(cache, "_resize", None)
    for length in range(64, 112):
        cache.reserve(8, length)


def test_a_failed_allocation_leaves_all_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = filled()
    before = cache.shape
    second = cache.layers[1]

    def fails(*_: object) -> list[torch.Tensor]:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    with monkeypatch.context() as patched:
        patched.setattr(second, "resized", fails)
        with pytest.raises(RuntimeError, match="can't allocate"):
            cache.reserve(3, 3000)
    assert cache.shape == before
    assert {tuple(buffer.shape[::2]) for layer in cache.layers for buffer in layer.buffers} == {
        before
    }
    cache.reserve(3, 3000)


def test_one_failed_allocation_fails_one_request_and_nothing_else(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = EmbeddedEngine(folder, HARDWARE, threads=1)
    resize = SlotCache._resize

    def small(cache: SlotCache, rows: int, capacity: int) -> None:
        if capacity > 300:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        resize(cache, rows, capacity)

    short = [[n, 2, 3] for n in range(4)]
    expected = [asyncio.run(ask(engine, prompt)) for prompt in short]
    monkeypatch.setattr(SlotCache, "_resize", small)

    async def all_at_once() -> list[list[int] | str]:
        return await asyncio.gather(*(ask(engine, p) for p in [*short, [5] * 400]))

    for _ in range(3):
        *others, long = asyncio.run(all_at_once())
        assert "out of memory" in long
        assert others == expected
    assert engine.health() == ""
    engine.close()


def test_answers_share_a_small_cache_by_waiting_and_pausing(folder: Path) -> None:
    prompts = [[n, 2, 3] * (3 + n) for n in range(12)]
    roomy = EmbeddedEngine(folder, HARDWARE, threads=1)
    expected = [asyncio.run(ask(roomy, prompt, 90)) for prompt in prompts]
    roomy.close()
    engine = EmbeddedEngine(folder, HARDWARE, threads=1, cache_tokens=300)
    held = []
    resize = engine._batch._cache._resize

    def watched(rows: int, capacity: int) -> None:
        held.append(rows * capacity)
        resize(rows, capacity)

    engine._batch._cache._resize = watched  # type: ignore[method-assign]

    async def all_at_once() -> list[list[int] | str]:
        return await asyncio.gather(*(ask(engine, prompt, 90) for prompt in prompts))

    assert asyncio.run(all_at_once()) == expected
    assert max(held) <= 300
    assert engine.statistics()["cache_used"] == 0
    engine.close()


def test_a_request_that_never_fits_is_refused_and_the_context_says_so(folder: Path) -> None:
    engine = EmbeddedEngine(folder, HARDWARE, threads=1, cache_tokens=40)
    assert engine.max_context == 40
    with pytest.raises(ValueError, match="are more than max_context=40"):
        asyncio.run(ask(engine, [1] * 33, 8))
    assert len(asyncio.run(ask(engine, [1] * 32, 8))) == 8
    engine.close()


def test_a_budget_is_what_was_asked_for_or_what_fits() -> None:
    assert budget(1024, 5000, None) == 5000
    assert budget(1024, 5000, 2 * 1024 * 700) == 700
    assert budget(1024, 5000, 0, tokens=9000) == 9000
    assert budget(1024, 5000, 0, gb=1) == 1 << 20
    with pytest.raises(ValueError, match="leave one of them out"):
        budget(1024, 5000, 0, tokens=1, gb=1)
    with pytest.raises(ValueError, match="no room for a token of 1024 bytes"):
        budget(1024, 5000, 100)
    assert (free_bytes("cpu") or 0) > 1 << 20
    assert free_bytes("meta") is None
