"""What the tables of foreign readers ask: small models that are whole, and enough texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM

from tests.jobs.formats import readers, zoo
from tests.jobs.formats.vllm_judge import TOKENS, Vllm


class InBf16:
    """A reader that computes in BF16 alone: transformers itself."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    @torch.no_grad()
    def answer(
        self, folder: Path, dtype: str = "float32", tokens: list[list[int]] = TOKENS
    ) -> dict[str, Any]:
        self.asked.append((dtype, len(tokens)))
        if dtype != "bfloat16":
            return {"refused": f"AssertionError: it {readers.WANTS_BF16}."}
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
        scores = model(input_ids=torch.tensor(tokens), use_cache=False).logits.float()
        return {"model": "itself", "scores": scores.log_softmax(-1)[:, :-1].tolist()}


def test_a_reader_that_computes_in_bf16_is_asked_for_many_texts(tmp_path: Path) -> None:
    source = zoo.save(zoo.small("qwen3_moe"), tmp_path / "source", spread=0.15)
    reader = InBf16()
    model, answer, _ = readers._compared(source, tmp_path / "bf16", "bf16", cast("Vllm", reader))
    assert (model, answer) == ("itself", "agrees")
    assert reader.asked == [("float32", 2), ("bfloat16", 32)]


def test_a_small_model_of_one_head_for_keys_and_values_says_so() -> None:
    config = zoo.small("gpt_bigcode", zoo.WIDER)
    rows = zoo.on_disk(config)["transformer.h.0.attn.c_attn.weight"].shape[0]
    head = config.n_embd // config.n_head
    assert rows == config.n_embd + 2 * head * config.num_key_value_heads
