"""The experts that are recorded are those that transformers' own router logits name."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from jobs.engines.routing import by_token, recorded

IDS = torch.arange(2, 14).reshape(2, 6)
SIZES = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 32,
    "moe_intermediate_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
}


@pytest.mark.parametrize(
    ("kind", "experts"),
    [("mixtral", "num_local_experts"), ("qwen3_moe", "num_experts"), ("olmoe", "num_experts")],
)
def test_the_experts_of_each_token_and_layer_are_recorded(kind: str, experts: str) -> None:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES, **{experts: 4}, pad_token_id=0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.inference_mode(), recorded(model) as choices:
        logits = model(input_ids=IDS, output_router_logits=True).router_logits
    found = by_token(choices, rows=2)
    assert found is not None
    assert tuple(found.shape) == (2, 6, 3, 2)
    told = torch.stack([one.topk(2).indices.sort().values for one in logits], 1)
    assert torch.equal(found.flatten(0, 1).long().sort().values, told)


def test_a_model_without_experts_tells_nothing_and_keeps_no_hook() -> None:
    model = LlamaForCausalLM(LlamaConfig(**SIZES))
    with torch.inference_mode(), recorded(model) as choices:
        model(input_ids=IDS)
    assert by_token(choices, rows=2) is None
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_layers_that_choose_fewer_experts_are_filled_up() -> None:
    found = by_token([torch.tensor([[1, 2]]), torch.tensor([[3]])], rows=1)
    assert found is not None
    assert found.tolist() == [[[[1, 2], [3, -1]]]]
