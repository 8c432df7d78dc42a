from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, MambaConfig, MambaForCausalLM

from jobs.engines.cache import SlotCache
from jobs.engines.embedded import EmbeddedEngine
from jobs.engines.forward import Forward
from jobs.engines.weights import computing
from orchestrator.engine import Piece, Sampling
from tests.jobs.engines.tiny_llama import EOS, HARDWARE

PROMPTS = ["a", "hello", "the quick brown fox", "é日本🙂" * 5, "x" * 300]
GREEDY = Sampling(max_tokens=48, temperature=0)


async def ask(engine: EmbeddedEngine, prompt: str, sampling: Sampling) -> list[Piece]:
    return [piece async for piece in engine.generate(engine.encode(prompt), sampling)]


async def ask_all(engine: EmbeddedEngine, sampling: Sampling) -> list[list[Piece]]:
    return await asyncio.gather(*(ask(engine, prompt, sampling) for prompt in PROMPTS))


async def ask_in_turn(engine: EmbeddedEngine, sampling: Sampling) -> list[list[Piece]]:
    return [await ask(engine, prompt, sampling) for prompt in PROMPTS]


def tokens(answers: list[list[Piece]]) -> list[list[int]]:
    return [[piece.token for piece in answer] for answer in answers]


async def freed(engine: EmbeddedEngine) -> bool:
    for _ in range(200):
        if not engine.active:
            return True
        await asyncio.sleep(0.01)
    return False


def test_greedy_equals_generate_token_for_token(engine: EmbeddedEngine, folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    answers = asyncio.run(ask_all(engine, GREEDY))
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        given = tokenizer(prompt, return_tensors="pt")
        whole = model.generate(**given, max_new_tokens=48, do_sample=False, pad_token_id=EOS)
        expected = whole[0, given.input_ids.shape[1] :].tolist()
        assert [piece.token for piece in answer] == expected
        text = "".join(piece.text for piece in answer)
        assert text == tokenizer.decode(expected, skip_special_tokens=True)


def test_more_requests_than_slots_wait_and_are_answered(folder: Path) -> None:
    engine = EmbeddedEngine(folder, HARDWARE, slots=2, threads=1)
    try:
        few = asyncio.run(ask_all(engine, GREEDY))
        assert tokens(few) == tokens(asyncio.run(ask_in_turn(engine, GREEDY)))
    finally:
        engine.close()


def always_ends(new: Sequence[Sequence[int]], cache: SlotCache) -> torch.Tensor:
    """Make the end the likeliest token."""
    return torch.nn.functional.one_hot(torch.tensor([EOS] * len(new)), 257)


def fails(new: Sequence[Sequence[int]], cache: SlotCache) -> torch.Tensor:
    """Answer as a device that is gone."""
    raise RuntimeError("HCCL error 507035")


def give(engine: EmbeddedEngine, run: Forward, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine._batch, "weights", replace(engine._batch.weights, run=run))


def test_an_end_token_ends_the_answer(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    give(engine, always_ends, monkeypatch)
    answer = asyncio.run(ask(engine, "a", GREEDY))
    assert [(piece.text, piece.finish) for piece in answer] == [("", "stop")]


def test_statistics_follow_the_work(folder: Path) -> None:
    engine = EmbeddedEngine(folder, HARDWARE, slots=1, threads=1)

    async def look() -> list[Mapping[str, float]]:
        sampling = Sampling(max_tokens=400, temperature=0)
        first, second = (engine.generate(engine.encode("hello"), sampling) for _ in range(2))
        await anext(first)
        waits = asyncio.ensure_future(anext(second))
        await asyncio.sleep(0)
        found = [engine.statistics()]
        await first.aclose()
        await waits
        await second.aclose()
        await freed(engine)
        return [*found, engine.statistics()]

    busy, idle = asyncio.run(look())
    assert (busy["running"], busy["waiting"]) == (1, 1)
    assert 11 <= busy["held"] <= 411, "one has answered, both have asked"
    assert 5 / 512 <= busy["cache_used"] <= 405 / 512
    assert [idle[name] for name in ("running", "waiting", "held", "cache_used")] == [0, 0, 0, 0]
    assert idle["tokens"] > busy["tokens"] >= 1
    engine.close()


def test_a_device_that_fails_ends_its_answers_only(
    engine: EmbeddedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        give(engine, fails, patched)
        with pytest.raises(RuntimeError, match="a step failed: HCCL error 507035"):
            asyncio.run(ask(engine, "hello", GREEDY))
    assert len(asyncio.run(ask(engine, "hello", GREEDY))) == 48


@pytest.mark.parametrize(("able", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_weights_are_widened_where_the_cpu_can_not_compute_with_them(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    able: bool,  # noqa: FBT001 - a parameter of the test
    expected: torch.dtype,
) -> None:
    narrow = shutil.copytree(folder, tmp_path / "narrow")
    AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).save_pretrained(narrow)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    engine = EmbeddedEngine(narrow, HARDWARE, threads=1)
    assert engine._model.dtype == expected
    assert engine.types == {"stored": "bfloat16", "computed": str(expected).removeprefix("torch.")}
    assert len(asyncio.run(ask(engine, "hello", Sampling(max_tokens=4, temperature=0)))) == 4
    engine.close()


def test_a_chat_goes_through_the_models_template(engine: EmbeddedEngine) -> None:
    prompt = engine.encode_chat([{"role": "user", "content": "2+2"}])
    assert prompt == engine.encode("user: 2+2\nassistant:")
    with pytest.raises(ValueError, match="refuses"):
        engine.encode_chat([{"role": "user", "content": "refuse"}])


def test_a_model_without_template_refuses_a_chat(folder: Path, tmp_path: Path) -> None:
    plain = shutil.copytree(folder, tmp_path / "plain")
    (plain / "chat_template.jinja").unlink()
    engine = EmbeddedEngine(plain, HARDWARE, threads=1)
    with pytest.raises(ValueError, match="no chat template"):
        engine.encode_chat([{"role": "user", "content": "2+2"}])
    engine.close()


def test_a_model_with_a_recurrent_state_is_refused(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "mamba")
    config = MambaConfig(vocab_size=257, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(other)
    with pytest.raises(ValueError, match="is not supported by this engine"):
        EmbeddedEngine(other, HARDWARE)


@pytest.mark.parametrize("device", ["cuda:0", "npu:0", "privateuseone"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_an_accelerator_computes_in_the_stored_type_whatever_the_cpu_beside_it_can(
    monkeypatch: pytest.MonkeyPatch, device: str, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict)
    assert computing(dtype, device) == dtype
    assert computing(dtype, "cpu") == torch.float32


def test_instructions_that_torch_may_not_use_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert computing(torch.bfloat16, "cpu") == torch.bfloat16
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    assert computing(torch.bfloat16, "cpu") == torch.float32
