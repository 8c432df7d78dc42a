"""Models that see a window serve their whole context, as transformers computes it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from jobs.engines.cache import windows_of
from jobs.engines.embedded import EmbeddedEngine
from orchestrator.engine import Piece, Prompt, Sampling
from tests.jobs.engines.tiny_llama import EOS, HARDWARE, continued, save_byte_tokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": None,
}
ALTERNATING = ["sliding_attention", "full_attention"] * 2
MODELS = {
    "mistral": (MistralForCausalLM, MistralConfig, {"sliding_window": 16}),
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config,
        {"use_sliding_window": True, "sliding_window": 16, "layer_types": ALTERNATING},
    ),
    "qwen3": (
        Qwen3ForCausalLM,
        Qwen3Config,
        {"use_sliding_window": True, "sliding_window": 16, "layer_types": ALTERNATING},
    ),
    "gemma3": (
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        {"sliding_window": 16, "layer_types": ALTERNATING, "query_pre_attn_scalar": 8},
    ),
}


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("kind", MODELS)
def test_answers_far_beyond_the_window_equal_generate(
    kind: str,
    fast: bool,  # noqa: FBT001 - a parameter of the test
    tmp_path: Path,
) -> None:
    model_class, config_class, more = MODELS[kind]
    torch.manual_seed(1)
    model = model_class(config_class(**{**SIZES, **more})).eval()
    model.save_pretrained(tmp_path)
    save_byte_tokenizer(tmp_path)
    engine = EmbeddedEngine(tmp_path, HARDWARE, threads=1, fast_forward=fast)
    assert engine.max_context == 256
    prompts = [
        [(7 * n + 3 * place) % 250 for place in range(length)]
        for n, length in enumerate((5, 15, 16, 17, 60, 130))
    ]

    async def ask(prompt: list[int]) -> list[Piece | Prompt]:
        sampling = Sampling(max_tokens=40, temperature=0, prompt_logprobs=0)
        return [outcome async for outcome in engine.generate(prompt, sampling)]

    async def ask_all() -> list[list[Piece | Prompt]]:
        return await asyncio.gather(*map(ask, prompts))

    for prompt, (scored, *pieces) in zip(prompts, asyncio.run(ask_all()), strict=True):
        assert [p.token for p in pieces if isinstance(p, Piece)] == continued(model, prompt)
        with torch.inference_mode():
            logs = model(torch.tensor([prompt])).logits[0].log_softmax(-1)
        assert isinstance(scored, Prompt)
        assert [score.logprob for score in scored.scores[1:] if score] == pytest.approx(
            [float(logs[place - 1, prompt[place]]) for place in range(1, len(prompt))], abs=1e-3
        )
    engine.close()


def test_a_window_as_wide_as_the_context_is_none() -> None:
    config = MistralConfig(**{**SIZES, "sliding_window": 16})
    assert windows_of(config, 16) == [None] * 4
    assert windows_of(config, 17) == [16] * 4


def test_a_model_that_sees_in_chunks_is_refused_beyond_one() -> None:
    config = MistralConfig(**SIZES, sliding_window=None)
    config.attention_chunk_size = 8
    config.layer_types = ["chunked_attention"] * 4
    assert windows_of(config, 8) == [None] * 4
    with pytest.raises(ValueError, match="ask for max_context=8 or less"):
        windows_of(config, 9)
