"""vLLM's engine against the embedded one: run by `.venv-vllm/bin/python -m pytest -m vllm`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

from jobs.engines.embedded import EmbeddedEngine
from jobs.engines.vllm import VllmEngine, check_able
from orchestrator.engine import Piece, Sampling
from tests.jobs.engines.foreign import HERE, with_vllm
from tests.jobs.engines.tiny_llama import (
    EOS,
    HARDWARE,
    SHAPE,
    save_byte_tokenizer,
    save_tiny_llama,
)
from tests.jobs.formats.models import convert

PROMPTS = [f"{number} + {number} =" * number for number in range(1, 9)]
GREEDY = Sampling(max_tokens=24, temperature=0, logprobs=2)
DTYPE: dict[str, Any] = {"dtype": "float32", "max_context": 512}


@pytest.mark.parametrize(
    ("device", "emulated", "config", "told"),
    [
        (
            "npu:0",
            True,
            {"model_type": "llama"},
            "emulated 'npu:0'; serve it with jobs.engines.em",
        ),
        ("cpu", True, {"model_type": "deepseek_v3"}, "wrongly on a CPU without compiling; serve"),
        (
            "cpu",
            False,
            {"model_type": "qwen3", "quantization_config": {"quant_method": "fp8"}},
            "needs AMX for FP8 on a CPU; export the model in bf16",
        ),
    ],
)
def test_what_vllm_can_not_do_is_refused_with_what_can(
    device: str,
    emulated: bool,  # noqa: FBT001 - a parameter of the test
    config: dict[str, Any],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", dict)
    hardware = replace(HARDWARE, device=device, emulated=emulated)
    with pytest.raises(ValueError, match=told):
        check_able(hardware, SimpleNamespace(**config))


@pytest.mark.skipif(HERE, reason="vLLM is here")
def test_without_vllm_one_line_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="vLLM is not in this environment; `make vllm` makes"):
        VllmEngine(save_tiny_llama(tmp_path), HARDWARE)


async def ask(engine: Any, prompt: str, sampling: Sampling) -> list[Piece]:
    return [piece async for piece in engine.generate(engine.encode(prompt), sampling)]


async def ask_all(engine: Any, sampling: Sampling = GREEDY) -> list[list[Piece]]:
    return await asyncio.gather(*(ask(engine, prompt, sampling) for prompt in PROMPTS))


def agree(found: list[list[Piece]], expected: list[list[Piece]]) -> None:
    """Compare what two engines say, up to rounding."""
    for ours, theirs in zip(found, expected, strict=True):
        assert [(p.token, p.text, p.finish) for p in ours] == [
            (p.token, p.text, p.finish) for p in theirs
        ]
        assert [p.logprob for p in ours] == pytest.approx([p.logprob for p in theirs], abs=1e-3)
        assert [p.top[0][0] for p in ours] == [p.top[0][0] for p in theirs]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return [
        save_tiny_llama(tmp_path_factory.mktemp(f"v{seed}"), seed=seed, head_dim=32)
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def references(folders: list[Path]) -> list[list[list[Piece]]]:
    answers = []
    for folder in folders:
        engine = EmbeddedEngine(folder, HARDWARE, threads=1)
        answers.append(asyncio.run(ask_all(engine)))
        engine.close()
    return answers


@with_vllm
def test_int8_is_served_nearly_as_its_plain_weights_are(tmp_path: Path) -> None:
    """What goes into a layer is rounded to 8 bits as well, which the probe must allow."""
    plain = save_tiny_llama(tmp_path / "plain", head_dim=32)
    coded = save_byte_tokenizer(convert(plain, tmp_path / "int8", "int8"))
    engine = VllmEngine(coded, HARDWARE, cache_gb=0.1, **DTYPE)
    embedded = EmbeddedEngine(coded, HARDWARE, threads=1)
    tokens = embedded.encode("to be, or not to be, that is the question")
    told = [[one.logprob for one in made.score(tokens, 4, 8)] for made in (engine, embedded)]
    for made in (engine, embedded):
        made.close()
    ours, theirs = torch.tensor(told)
    assert float((ours - theirs).abs().mean()) < 0.8, "of 4 to 10 for a token"
    assert float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) > 0.85


@with_vllm
def test_a_model_of_experts_is_updated_by_an_engine_made_anew(tmp_path: Path) -> None:
    """Runs first: a process holds one vLLM at a time."""
    folders = [tmp_path / "0", tmp_path / "1"]
    more = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        config = Qwen3MoeConfig(**{**SHAPE, **more, "head_dim": 32})
        Qwen3MoeForCausalLM(config).save_pretrained(folder)
        save_byte_tokenizer(folder)
    engine = VllmEngine(folders[0], HARDWARE, cache_gb=0.1, **DTYPE)
    before = asyncio.run(ask_all(engine))
    engine.update(folders[1], "v1")  # which compares it with transformers
    updated = asyncio.run(ask_all(engine))
    engine.close()
    assert updated != before
    fresh = VllmEngine(folders[1], HARDWARE, cache_gb=0.1, **DTYPE)
    agree(updated, asyncio.run(ask_all(fresh)))
    fresh.close()


@pytest.fixture(scope="module")
def engine(folders: list[Path]) -> Iterator[VllmEngine]:
    engine = VllmEngine(folders[0], HARDWARE, version="v0", cache_gb=0.1, **DTYPE)
    yield engine
    engine.close()


@with_vllm
def test_it_answers_as_the_embedded_engine_does_and_is_updated_as_it(
    engine: VllmEngine, folders: list[Path], references: list[list[list[Piece]]]
) -> None:
    agree(asyncio.run(ask_all(engine)), references[0])
    engine.update(folders[1], "v1")
    agree(asyncio.run(ask_all(engine)), references[1])
    engine.update(folders[0], "v0")
    agree(asyncio.run(ask_all(engine)), references[0])


@with_vllm
def test_it_scores_a_text_as_the_embedded_engine_does(
    engine: VllmEngine, folders: list[Path]
) -> None:
    embedded = EmbeddedEngine(folders[0], HARDWARE, threads=1)
    tokens = embedded.encode("to be, or not to be")
    pairs = zip(engine.score(tokens, 4, 8), embedded.score(tokens, 4, 8), strict=True)
    for ours, theirs in pairs:
        assert ours.top[:2] == theirs.top[:2]
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-3)
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
    embedded.close()


@with_vllm
def test_answers_in_flight_go_on_over_an_update(engine: VllmEngine, folders: list[Path]) -> None:
    sampling = Sampling(max_tokens=200, temperature=0)

    async def update_meanwhile() -> list[list[Piece]]:
        streams = asyncio.gather(*(ask(engine, prompt, sampling) for prompt in PROMPTS))
        while engine.statistics()["tokens"] < before + 24:  # noqa: ASYNC110 - a counter, no event
            await asyncio.sleep(0.005)
        await asyncio.to_thread(engine.update, folders[1], "v1")
        return await streams

    before = engine.statistics()["tokens"]
    answers = asyncio.run(update_meanwhile())
    assert all(len(answer) == 200 or answer[-1].token == EOS for answer in answers)
    assert {piece.version for answer in answers for piece in answer} == {"v0", "v1"}
    assert engine.statistics()["cache_used"] == 0
    engine.update(folders[0], "v0")


@with_vllm
def test_weights_that_vllm_reads_wrongly_are_refused(
    engine: VllmEngine,
    folders: list[Path],
    references: list[list[list[Piece]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    right = engine._batch._read
    with monkeypatch.context() as patched:
        patched.setattr(engine._batch, "_read", lambda _: right(folders[0]))
        with pytest.raises(ValueError, match="log-probabilities for a plain prompt differ"):
            engine.update(folders[1], "v1")
    assert engine.version == "v0"
    agree(asyncio.run(ask_all(engine)), references[0])


@with_vllm
def test_stop_strings_and_seeds_are_kept(engine: VllmEngine) -> None:
    plain = asyncio.run(ask(engine, "hello", replace(GREEDY, logprobs=None)))
    whole = "".join(piece.text for piece in plain)
    stop = whole[8:11]
    cut = asyncio.run(ask(engine, "hello", replace(GREEDY, stop=(stop,))))
    assert "".join(piece.text for piece in cut) == whole[: whole.index(stop)]
    assert cut[-1].finish == "stop"
    drawn = [
        [[p.token for p in answer] for answer in asyncio.run(ask_all(engine, sampling))]
        for sampling in (Sampling(max_tokens=8, seed=seed) for seed in (5, 5, 6))
    ]
    assert drawn[0] == drawn[1] != drawn[2]
