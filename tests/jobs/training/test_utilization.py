"""What a token costs, as torch counts operations; what that makes of what a chip can do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.training import model as models
from jobs.training.loss import TokenLoss
from jobs.training.utilization import Speed, flops_per_token, peak_of, speed_of
from tests.jobs.local_context import EMULATED, LocalContext
from tests.jobs.recipes import LATENT
from tests.jobs.training.test_checkpoint import Tokenizer

ROWS, WIDTH = 2, 32
DENSE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
LATENT_EXPERTS: dict[str, Any] = {
    **DENSE,
    **LATENT,
    "num_key_value_heads": 2,
    "v_head_dim": 24,
    "moe_intermediate_size": 32,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
EXPERTS = {**DENSE, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("llama", {**DENSE, "tie_word_embeddings": True}),
        ("llama", {**DENSE, "tie_word_embeddings": False}),
        ("qwen3", {**DENSE, "head_dim": 24}),
        ("qwen3_moe", {**EXPERTS, "head_dim": 16}),
        ("deepseek_v3", LATENT_EXPERTS),
        ("hunyuan_v1_moe", {**DENSE, "head_dim": 16, "num_experts": 4, "moe_topk": [1, 2]}),
        (
            "jetmoe",
            {**DENSE, "num_attention_heads": 4, "num_key_value_heads": 2, "kv_channels": 16},
        ),
        ("lfm2", {**DENSE, "layer_types": ["conv", "full_attention"]}),
    ],
)
def test_a_token_costs_what_torch_counts(architecture: str, fields: dict[str, Any]) -> None:
    model = built(architecture, fields)
    assert flops_per_token(model, WIDTH) == pytest.approx(counted(model, WIDTH), rel=0.02)


def built(architecture: str, fields: dict[str, Any]) -> Any:
    """Return a model that multiplies no more than it must."""
    model: Any = models.build(architecture, fields, Tokenizer()).train()
    model.set_attn_implementation("eager")
    if fields.keys() & {"num_experts_per_tok", "moe_topk"}:
        model.set_experts_implementation("eager")
    return model


def counted(model: Any, width: int) -> float:
    """Return the operations of a token that torch counts, in rows of so many."""
    tokens = torch.randint(3, 30, (ROWS, width))
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(TokenLoss(model)(tokens, tokens))
    return counter.get_total_flops() / tokens.numel()


@pytest.mark.parametrize(
    ("architecture", "fields"),
    [
        ("gemma2", {"layer_types": ["sliding_attention"] * 2, "sliding_window": 8}),
        ("mistral", {"sliding_window": 8}),
        ("llama4_text", {"layer_types": ["chunked_attention"] * 2, "attention_chunk_size": 8}),
    ],
)
def test_attention_costs_what_a_layer_sees(architecture: str, fields: dict[str, Any]) -> None:
    """torch counts what is masked, too: what a token costs that sees 8 is that in rows of 8."""
    experts = {"num_local_experts": 2, "num_experts_per_tok": 2, "intermediate_size_mlp": 64}
    more = experts if architecture == "llama4_text" else {}
    model = built(architecture, {**DENSE, "head_dim": 16, **more, **fields})
    seen = flops_per_token(model, WIDTH)
    assert seen == pytest.approx(counted(model, 8), rel=0.01)
    if "layer_types" in fields:
        model.config.layer_types = [fields["layer_types"][0], "full_attention"]
        assert seen is not None
        assert flops_per_token(model, WIDTH) == pytest.approx(
            (seen + counted(model, WIDTH)) / 2, rel=0.01
        )


def test_why_nobody_knows_what_a_token_costs_is_said_by_the_first_worker(tmp_path: Path) -> None:
    model: Any = models.build(
        "aria_text", {**DENSE, "moe_num_experts": 4, "moe_topk": 2}, Tokenizer()
    )
    real = replace(EMULATED, emulated=False, tflops={"float32": 67.0})
    for rank in range(2):
        ctx = LocalContext(folder=tmp_path, rank=rank, world_size=2, hardware=real)
        speed = speed_of(ctx, model, dtype="float32", width=WIDTH)
        assert speed.figures(1.0) == {"train/tokens_per_second_per_chip": 0.5}
        said = "how many experts of a 'aria_text' a token goes to is not known"
        assert ctx.lines == ([f"train/mfu is not told: {said}"] if rank == 0 else [])


def test_a_chip_that_does_half_of_what_is_published_has_an_mfu_of_a_half() -> None:
    figures = Speed(chips=4, flops=1e9, peak=2e12).figures(4000.0)
    assert figures == {"train/tokens_per_second_per_chip": 1000.0, "train/mfu": 0.5}


def test_nothing_is_told_of_a_rate_that_nobody_publishes_or_of_an_emulated_chip() -> None:
    real = replace(EMULATED, emulated=False, tflops={"bfloat16": 989.0})
    assert peak_of(real, "bfloat16") == 989e12
    assert peak_of(real, "float32") is None
    assert peak_of(replace(real, emulated=True), "bfloat16") is None
    assert "train/mfu" not in Speed(chips=1, flops=1e9, peak=None).figures(1.0)
