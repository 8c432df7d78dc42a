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


# As released: `config.json` of these types, with what is not of the model. Sizes are small.
COMMON = {"bos_token_id": 0, "eos_token_id": 1, "torch_dtype": "bfloat16", "use_cache": True}
LATENT: dict[str, Any] = {
    **{name: value for name, value in DEEPSEEK_V3.items() if name != "num_nextn_predict_layers"},
    **COMMON,
    "aux_loss_alpha": 0.001,
    "seq_aux": True,
    "hidden_act": "silu",
    "pretraining_tp": 1,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 128,
    "auto_map": {"AutoConfig": "configuration_deepseek.DeepseekV3Config"},
}
DENSE: dict[str, Any] = {
    **COMMON,
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "rms_norm_eps": 1e-6,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "head_dim": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": 96,
}
FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
GEMMA = {
    "attn_logit_softcapping": 50.0,
    "cache_implementation": "hybrid",
    "sliding_window": 64,
    "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 16,
    "hidden_activation": "gelu_pytorch_tanh",
}
RELEASED: dict[str, dict[str, Any]] = {
    "deepseek_v3": {**LATENT, "quantization_config": FP8, "num_nextn_predict_layers": 1},
    "deepseek_v2": {**LATENT, "scoring_func": "softmax", "topk_method": "greedy"},
    "gpt_oss": {
        **DENSE,
        "experts_per_token": 2,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
        "initial_context_length": 4096,
        "swiglu_limit": 7.0,
        "attention_bias": True,
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "hidden_act": "silu",
        "output_router_logits": False,
        "router_aux_loss_coef": 0.9,
        "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]},
    },
    "gemma2": {**DENSE, **GEMMA, "hidden_act": "gelu_pytorch_tanh"},
    "gemma3_text": {**DENSE, **GEMMA, "rope_local_base_freq": 10000.0},
    "qwen2": {
        **DENSE,
        "use_mrope": False,
        "use_sliding_window": False,
        "sliding_window": 64,
        "max_window_layers": 2,
    },
    "qwen3_next": {
        **DENSE,
        "use_sliding_window": False,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "full_attention_interval": 2,
        "linear_conv_kernel_dim": 4,
        "num_experts": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "num_experts_per_tok": 2,
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "norm_topk_prob": True,
        "moe_intermediate_size": 16,
        "shared_expert_intermediate_size": 16,
        "partial_rotary_factor": 0.25,
        "rope_scaling": None,
        "hidden_act": "silu",
        "output_router_logits": False,
        "router_aux_loss_coef": 0.001,
    },
    "gpt2": {
        "activation_function": "gelu_new",
        "attn_pdrop": 0.1,
        "embd_pdrop": 0.1,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "initializer_range": 0.02,
        "resid_pdrop": 0.1,
        "layer_norm_epsilon": 1e-5,
        "n_ctx": 128,
        "n_embd": 32,
        "n_head": 2,
        "n_layer": 2,
        "n_positions": 128,
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "vocab_size": 96,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    },
    "minimax_m2": {
        **DENSE,
        "attn_type_list": [1, 1],
        "layernorm_full_attention_beta": 1.0,
        "layernorm_linear_attention_beta": 1.0,
        "layernorm_mlp_beta": 1.0,
        "mlp_intermediate_size": 64,
        "mtp_transformer_layers": 1,
        "num_mtp_modules": 3,
        "num_experts_per_tok": 2,
        "num_local_experts": 4,
        "qk_norm_type": "per_layer",
        "rotary_dim": 8,
        "router_jitter_noise": 0.0,
        "scoring_func": "sigmoid",
        "shared_intermediate_size": 0,
        "shared_moe_mode": "sigmoid",
        "swa_rope_theta": -1.0,
        "use_mtp": True,
        "use_qk_norm": True,
        "use_routing_bias": True,
        "output_router_logits": False,
        "sliding_window": None,
        "quantization_config": FP8,
    },
    "llama": {
        **DENSE,
        "attention_bias": False,
        "is_llama_config": True,
        "mlp_bias": False,
        "rope_interleaved": False,
        "rope_scaling": None,
        "pretraining_tp": 1,
    },
}


@pytest.mark.parametrize("architecture", RELEASED)
def test_a_config_as_released_is_taken_with_or_without_its_type(architecture: str) -> None:
    fields = RELEASED[architecture]
    files = {"model_type": architecture, "architectures": ["Any"], "transformers_version": "4.40"}
    for given in (fields, {**fields, **files}):
        with torch.device("meta"):
            model: Any = models.build(architecture, given, Tokenizer())
        assert model.config.num_hidden_layers == 2
        assert model.config.model_type == architecture
        assert "quantization_config" not in model.config.to_dict()


def test_what_is_not_known_of_a_config_as_released_is_told_in_a_line_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fields = {**DENSE, "model_type": "llama", "new_loss": 1, "other_field": [1], "_secret": 2}
    with torch.device("meta"):
        model: Any = models.build("llama", fields, Tokenizer())
    assert [record.getMessage() for record in caplog.records if "left out" in record.message] == [
        "llama reads no new_loss, other_field: left out"
    ]
    assert model.config.to_dict().keys().isdisjoint({"new_loss", "other_field", "_secret"})


@pytest.mark.parametrize(
    ("architecture", "fields", "said"),
    [
        ("llama", {"hiden_size": 8}, "no field 'hiden_size' .* did you mean 'hidden_size'"),
        ("qwen3_moe", {"head_dims": 8}, "no field 'head_dims' .* did you mean 'head_dim'"),
        ("llama", {"n_routed_experts": 8}, "no field 'n_routed_experts' in a config of 'llama'"),
        ("mixtral", {"scoring_func": "sigmoid"}, "no field 'scoring_func'"),
        ("deepseek_v3", {"scoring_func": "softmax"}, "not what 'deepseek_v3' does.* 'sigmoid'"),
        ("qwen2", {"use_mrope": True}, "not what 'qwen2' does.* False"),
        ("gpt_oss", {"experts_per_token": 2}, "experts_per_token=2 is not .*: it has 4"),
        ("gpt2", {"n_ctx": 64, "n_positions": 128}, "n_ctx=64 is not .*: it has 128"),
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
