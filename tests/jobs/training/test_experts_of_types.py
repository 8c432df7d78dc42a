"""A step of every type with experts: their loads are counted, and evened or said not to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from jobs.pretraining import pretrain
from jobs.training.balance import Balance
from jobs.training.loss import TokenLoss
from jobs.training.optimizers import OptimizerConfig, optimizer_for
from jobs.training.process_group import ProcessGroup
from jobs.training.step import Stepper
from tests.jobs.formats import zoo
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT
from tests.jobs.training.test_balance import BY_BIAS, BY_LOSS, CPU, rows_of_patterns

BY_A_BIAS = {
    *("afmoe", "axk1", "axk2", "bailing_hybrid", "deepseek_v3", "deepseek_v32", "dots1"),
    *("dots3_note", "dots3_note_text", "exaone_moe", "glm4_moe", "glm4_moe_lite", "glm_moe_dsa"),
    *("hy_v3", "hy_v4", "inkling2_text", "inkling_text", "kimi_linear", "kolibri1", "lfm2_moe"),
    *("longcat_flash", "mimo_v2_flash", "nemotron_h", "solar_open", "zaya"),
}
BY_A_LOSS = {
    *("dbrx", "flex_olmo", "gpt_oss", "granitemoe", "granitemoe_swa", "granitemoehybrid"),
    *("granitemoeshared", "jamba", "jetmoe", "llama4", "llama4_text", "mellum", "minimax"),
    *("mixtral", "olmoe", "phimoe", "qwen2_moe", "qwen3_5_moe", "qwen3_5_moe_text"),
    *("qwen3_moe", "qwen3_next", "qwen4_exp", "qwen4_exp_text"),
}
BY_BOTH = {"deepseek_v4", "ernie4_5_moe", "laguna", "minimax_m2", "minimax_m3_vl_text"}
BY_NOTHING = {"aria_text", "cohere2_moe", "deepseek_v2", "hunyuan_v1_moe"}
SIZES = {**zoo.SMALL, "num_dense_layers": 1, "ffn_hidden_size": 64, "expert_ffn_hidden_size": 32}
# Attention alone, where the other kind of layer is slow without its kernels.
_ATTENTION = {
    "granitemoehybrid": {"layer_types": ["attention"] * 2},
    "kimi_linear": {"layer_types": ["full_attention"] * 2},
}
PAD = 0


def stepper_of(folder: Path, kind: str) -> Stepper:
    """Return what trains the small model of a type."""
    torch.manual_seed(3)
    config = zoo.small(kind, {**SIZES, **_ATTENTION.get(kind, {})})
    model: Any = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
        elif not parameter.isfinite().all():
            torch.nn.init.zeros_(parameter)
    group = ProcessGroup(LocalContext(folder=folder))
    return Stepper(
        group=group,
        wrapped=TokenLoss(model.train()),
        optimizer=optimizer_for(model, OptimizerConfig(beta2=0.98), rate=1e-3, device=CPU),
        rows=rows_of_patterns(),
        pad=PAD,
        accumulate=2,
        clip=1.0,
        balance=Balance(model, group, rate=0.25),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(BY_A_BIAS | BY_A_LOSS | BY_BOTH | BY_NOTHING))
def test_a_step_of_a_type_with_experts_counts_and_evens_their_loads(
    tmp_path: Path, kind: str
) -> None:
    training = stepper_of(tmp_path, kind)
    balance = training.balance
    layers = [layer for layer in balance._layers if layer.scored or layer.bias is not None]
    before = [None if layer.bias is None else layer.bias.clone() for layer in layers]
    done = training.take(torch.arange(8), 1e-3)

    assert not done.skipped
    assert layers
    for layer in layers:
        assert int(layer.load.sum()) == 8 * 15 * layer.top_k
    moved = [
        earlier is not None and not torch.equal(earlier, layer.bias)
        for earlier, layer in zip(before, layers, strict=True)
    ]
    assert all(moved) == (kind in BY_A_BIAS | BY_BOTH)
    assert balance.has_loss == (kind in BY_A_LOSS | BY_BOTH)
    assert bool(balance.uneven) == (kind in BY_NOTHING)


def test_experts_that_get_tokens_alone_are_counted_by_the_scores_of_their_router(
    tmp_path: Path,
) -> None:
    training = stepper_of(tmp_path, "llama4_text")
    router = training.wrapped.model.model.layers[0].feed_forward.router  # type: ignore[union-attr]
    seen: list[torch.Tensor] = []
    router.register_forward_hook(lambda _, __, given: seen.append(given[0]))  # type: ignore[operator]
    training.take(torch.arange(8), 1e-3)
    load = torch.stack([(scores != 0).sum(0) for scores in seen]).sum(0)
    assert torch.equal(training.balance._layers[0].load[:-1], load)


def test_a_token_that_skips_the_experts_is_no_load_of_the_first(tmp_path: Path) -> None:
    training = stepper_of(tmp_path, "zaya")
    model: Any = training.wrapped.model
    bias = model.model.layers[0].mlp.gate.balancing_biases
    bias[-1] = 2.0
    training.take(torch.arange(8), 1e-3)
    assert training.balance._layers[0].load.tolist() == [0, 0, 0, 0, 8 * 15]
    assert bias.tolist() == [0.0, 0.0, 0.0, 0.0, 2.0]


@pytest.mark.parametrize(
    ("architecture", "fields", "layers"),
    [
        ("qwen3_moe", {**BY_LOSS, "router_aux_loss_coef": 0.0}, "0, 1"),
        ("qwen3_moe", BY_LOSS, ""),
        ("deepseek_v3", BY_BIAS, ""),
        ("deepseek_v2", {**BY_BIAS, "head_dim": 8}, "1"),
    ],
)
def test_experts_that_nothing_evens_are_said_in_one_line(
    tmp_path: Path, sums: Path, architecture: str, fields: dict[str, Any], layers: str
) -> None:
    ctx = LocalContext(folder=tmp_path, inputs={"data": sums})
    pretrain(ctx, **{**SHORT, "architecture": architecture, "model": fields, "steps": 1})
    said = [line for line in ctx.lines if line.startswith("nothing evens")]
    begins = f"nothing evens the load of the experts of layers {layers}: "
    assert [line.startswith(begins) for line in said] == [True] * bool(layers)
