from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from jobs.engines import fast_forward, probe
from jobs.engines.cache import SlotCache, windows_of
from jobs.engines.fast_forward import FastForward
from jobs.engines.forward import Forward, ModelForward
from tests.jobs.engines.tiny_llama import SHAPE

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
DEEPSEEK = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2}
KIN = [
    ("llama", {}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "rope_parameters": LLAMA3}),
    ("llama", {"num_key_value_heads": 4, "tie_word_embeddings": True}),
    ("llama", {"num_key_value_heads": 1, "head_dim": 32}),
    ("mistral", {}),
    ("qwen2", {}),
    ("qwen3", {"head_dim": 24}),
]
OTHERS = [
    ("llama", {"hidden_act": "gelu"}),
    ("llama", {"rope_parameters": DYNAMIC}),
    ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}),
    ("gpt_neox", {}),
    ("qwen3_moe", MOE),
    ("mixtral", {"num_local_experts": 4}),
    ("deepseek_v3", {**DEEPSEEK, "num_key_value_heads": 4}),
    ("gemma2", {"head_dim": 16}),
]


def made(kind: str, more: dict[str, Any], dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{**SHAPE, **more})
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval()
    for name, weight in model.named_parameters():
        if "norm" in name or "bias" in name:  # which are made as ones and zeros
            torch.nn.init.normal_(weight, 0.7, 0.3)
    return model


def check(model: Any, run: Forward) -> None:
    windows = windows_of(model.config, 128)
    probe.check(model, run, SlotCache(windows, 128, torch.device("cpu")))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("kind", "more"), KIN)
def test_the_fast_forward_computes_what_the_model_does(
    kind: str, more: dict[str, Any], dtype: torch.dtype
) -> None:
    model = made(kind, more, dtype)
    assert fast_forward.fits(model)
    check(model, FastForward(model, 128))


@pytest.mark.parametrize(("kind", "more"), OTHERS)
def test_other_models_run_by_their_own_forward(kind: str, more: dict[str, Any]) -> None:
    model = made(kind, more)
    assert not fast_forward.fits(model)
    check(model, ModelForward(model))


def test_the_fast_forward_shares_its_weights_with_the_model() -> None:
    model = made("qwen2", {})
    before = model(torch.tensor([[1, 2, 3]])).logits
    run = FastForward(model, 128)
    assert torch.equal(model(torch.tensor([[1, 2, 3]])).logits, before)
    with torch.inference_mode():
        model.model.layers[0].mlp.up_proj.weight.mul_(0.5)
        model.model.layers[1].self_attn.k_proj.bias.add_(1)
    check(model, run)


@pytest.mark.parametrize("factor", [1.01, float("nan")])
def test_a_slightly_wrong_pass_and_one_without_numbers_are_told(factor: float) -> None:
    model = made("llama", {})
    right = ModelForward(model)
    with pytest.raises(ValueError, match=r"rounding is 0\.001 at most"):
        check(model, lambda new, cache: right(new, cache) * factor)


def exchanged(run: Forward, new: Sequence[Sequence[int]], cache: SlotCache) -> Tensor:
    """Give each row the scores of the other."""
    return run(new, cache).flip(0)


def late(run: Forward, new: Sequence[Sequence[int]], cache: SlotCache) -> Tensor:
    """Leave the last new token of each row unread."""
    scores = run(new, cache, every=True)
    return torch.stack([row[max(len(one) - 2, 0)] for row, one in zip(scores, new, strict=True)])


def shifted(run: Forward, new: Sequence[Sequence[int]], cache: SlotCache) -> Tensor:
    """Take each token for the one behind it."""
    cache.span.positions.add_(1)
    return run(new, cache)


def forgetful(run: Forward, new: Sequence[Sequence[int]], cache: SlotCache) -> Tensor:
    """Lose the first token that was read."""
    for layer in cache.layers:
        for buffer in layer.buffers:
            buffer[:, :, 0] = 0
    return run(new, cache)


DEEP = {"num_hidden_layers": 30}  # as deep as a small model that is served
Fault = Callable[[Forward, Sequence[Sequence[int]], SlotCache], Tensor]


@pytest.mark.parametrize("fault", [exchanged, late, shifted, forgetful])
def test_a_wrong_pass_is_told_in_bfloat16_too_and_the_rounding_of_thirty_layers_is_none(
    fault: Fault,
) -> None:
    model = made("llama", DEEP, torch.bfloat16)
    right = FastForward(model, 128)
    check(model, right)
    with pytest.raises(ValueError, match=r"of their spread .* rounding is 0\.3 at most"):
        check(model, lambda new, cache: fault(right, new, cache))


def test_a_model_without_numbers_is_told() -> None:
    model = made("llama", {})
    with torch.inference_mode():
        model.model.norm.weight.fill_(torch.inf)
    with pytest.raises(ValueError, match="not finite"):
        check(model, ModelForward(model))
