"""What a token costs, as torch counts operations; what that makes of what a chip can do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.training import model as models
from jobs.training.loss import TokenLoss
from jobs.training.utilization import Speed, flops_per_token, peak_of
from tests.jobs.local_context import EMULATED
from tests.jobs.training.test_checkpoint import Tokenizer

ROWS, WIDTH = 2, 32
DENSE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
EXPERTS = {**DENSE, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("llama", {**DENSE, "tie_word_embeddings": True}),
        ("llama", {**DENSE, "tie_word_embeddings": False}),
        ("qwen3", {**DENSE, "head_dim": 24}),
        ("qwen3_moe", {**EXPERTS, "head_dim": 16}),
    ],
)
def test_a_token_costs_what_torch_counts(architecture: str, fields: dict[str, Any]) -> None:
    model: Any = models.build(architecture, fields, Tokenizer()).train()
    model.set_attn_implementation("eager")
    if architecture == "qwen3_moe":
        model.set_experts_implementation("eager")
    tokens = torch.randint(3, 30, (ROWS, WIDTH))
    with FlopCounterMode(display=False) as counted:
        torch.autograd.backward(TokenLoss(model)(tokens, tokens))
    ours = flops_per_token(model, WIDTH) * ROWS * WIDTH
    assert ours == pytest.approx(counted.get_total_flops(), rel=0.01)


def test_a_chip_that_does_half_of_what_is_published_has_an_mfu_of_a_half() -> None:
    figures = Speed(chips=4, flops=1e9, peak=2e12).figures(4000.0)
    assert figures == {"train/tokens_per_second_per_chip": 1000.0, "train/mfu": 0.5}


def test_nothing_is_told_of_a_rate_that_nobody_publishes_or_of_an_emulated_chip() -> None:
    real = replace(EMULATED, emulated=False, tflops={"bfloat16": 989.0})
    assert peak_of(real, "bfloat16") == 989e12
    assert peak_of(real, "float32") is None
    assert peak_of(replace(real, emulated=True), "bfloat16") is None
    assert "train/mfu" not in Speed(chips=1, flops=1e9, peak=None).figures(1.0)
