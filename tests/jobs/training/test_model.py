"""Models as they are described, and as they are read: any valid field, any format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from jobs.export import export
from jobs.pretraining import pretrain
from jobs.training import model as models
from tests.jobs.local_context import LocalContext
from tests.jobs.recipes import SHORT
from tests.jobs.test_pretraining import weights
from tests.jobs.training.test_skipping import Tokenizer

# As published, but for what the sizes are.
QWEN3_MOE = json.loads("""{
    "attention_bias": false, "attention_dropout": 0.0, "decoder_sparse_step": 1, "head_dim": 16,
    "hidden_act": "silu", "hidden_size": 32, "initializer_range": 0.02, "intermediate_size": 64,
    "max_position_embeddings": 128, "max_window_layers": 48, "mlp_only_layers": [],
    "moe_intermediate_size": 16, "norm_topk_prob": true, "num_attention_heads": 2,
    "num_experts": 4, "num_experts_per_tok": 2, "num_hidden_layers": 1, "num_key_value_heads": 1,
    "output_router_logits": false, "rms_norm_eps": 1e-6, "rope_scaling": null, "rope_theta": 1e6,
    "router_aux_loss_coef": 0.001, "sliding_window": null, "tie_word_embeddings": false,
    "use_sliding_window": false
}""")
DEEPSEEK_V3 = json.loads("""{
    "attention_bias": false, "ep_size": 1, "first_k_dense_replace": 1, "hidden_size": 32,
    "intermediate_size": 64, "kv_lora_rank": 16, "moe_intermediate_size": 16, "moe_layer_freq": 1,
    "n_group": 2, "n_routed_experts": 4, "n_shared_experts": 1, "norm_topk_prob": true,
    "num_attention_heads": 2, "num_experts_per_tok": 2, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "num_nextn_predict_layers": 1, "q_lora_rank": 16,
    "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "rope_theta": 10000,
    "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_group": 1,
    "topk_method": "noaux_tc", "v_head_dim": 8
}""")


@pytest.mark.parametrize(
    ("architecture", "fields"), [("qwen3_moe", QWEN3_MOE), ("deepseek_v3", DEEPSEEK_V3)]
)
def test_a_model_is_described_by_all_fields_of_its_published_config(
    architecture: str, fields: dict[str, Any]
) -> None:
    model: Any = models.build(architecture, fields, Tokenizer())
    tokens = torch.arange(3, 33).reshape(3, 10)
    assert torch.isfinite(model(input_ids=tokens, labels=tokens).loss)
    assert getattr(model.config, "head_dim", 8) == fields.get("head_dim", 8)


@pytest.mark.parametrize(
    ("architecture", "fields", "said"),
    [
        ("llama", {"hiden_size": 8}, "no field 'hiden_size' .* did you mean 'hidden_size'"),
        ("qwen3_moe", {"head_dims": 8}, "no field 'head_dims' .* did you mean 'head_dim'"),
        ("llama", {"n_routed_experts": 8}, "no field 'n_routed_experts' in a config of 'llama'"),
        ("mixtral", {"scoring_func": "sigmoid"}, "no field 'scoring_func'"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "not what 'deepseek_v3' does.* 'sigmoid'"),
    ],
)
def test_a_field_that_the_model_would_leave_unused_is_refused(
    architecture: str, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        models.build(architecture, fields, Tokenizer())


@pytest.mark.parametrize("form", ["fp8", "fp8_ue8m0", "mxfp8", "int8", "bf16"])
def test_training_goes_on_from_a_model_in_any_format(
    tmp_path: Path, sums: Path, undisturbed: LocalContext, form: str
) -> None:
    given = LocalContext(folder=tmp_path / "given", inputs={"model": undisturbed.output})
    export(given, format=form)
    config = json.loads((given.output / "config.json").read_text())
    assert ("quantization_config" in config) is (form != "bf16")
    inputs = {"data": sums, "model": given.output}
    ctx = LocalContext(folder=tmp_path / "on", inputs=inputs, stop_after=12)
    with pytest.raises(InterruptedError):
        pretrain(ctx, **SHORT)
    ctx = LocalContext(folder=tmp_path / "on", inputs=inputs)
    pretrain(ctx, **SHORT)
    assert ctx.series("train/loss")[-1] < undisturbed.series("train/loss")[-1]
    written = json.loads((ctx.output / "config.json").read_text())
    assert "quantization_config" not in written
    assert {tensor.dtype for tensor in weights(ctx).values()} == {torch.float32}
    assert weights(ctx).keys() == load_file(undisturbed.output / "model.safetensors").keys()
