"""Every type of causal language model that transformers knows, made small."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from jobs.formats.headers import Spec

TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
MOST = 20_000_000  # parameters of a model that is small
# Fields by the names that types give them; each is set where the config has it.
_HIDDEN = (
    *("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "emb_dim", "dim_model"),
    *("hidden_size_global", "adapter_in_dim", "adapter_out_dim", "adapter_input_size"),
)
_LAYERS = (
    *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers"),
    *("encoder_layers", "num_blocks"),
)
_WIDE = ("intermediate_size", "ffn_dim", "n_inner", "decoder_ffn_dim", "encoder_ffn_dim", "dim_ff")
_HEADS = (
    *("num_attention_heads", "n_head", "n_heads", "num_heads"),
    *("decoder_attention_heads", "encoder_attention_heads"),
)
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_NARROW = (
    *("moe_intermediate_size", "shared_expert_intermediate_size", "q_lora_rank", "kv_lora_rank"),
    "moe_shared_expert_intermediate_size",
)
_SIXTEEN = ("head_dim", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim")
_ONES = ("n_group", "topk_group", "first_k_dense_replace")
SMALL: dict[str, int] = {
    **dict.fromkeys(_HIDDEN, 64),
    **dict.fromkeys(_LAYERS, 2),
    **dict.fromkeys(_WIDE, 128),
    **dict.fromkeys(_HEADS, 4),
    **dict.fromkeys(_EXPERTS, 4),
    **dict.fromkeys(_NARROW, 32),
    **dict.fromkeys(_SIXTEEN, 16),
    **dict.fromkeys(_ONES, 1),
    "vocab_size": 96,
    "vocab_size_per_layer_input": 96,
    "hidden_size_per_layer_input": 16,
    "num_kv_shared_layers": 0,
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "image_size": 32,
    "patch_size": 16,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
# Sizes that kernels take which want whole vectors, as vLLM's on a CPU.
WIDER: dict[str, int] = {
    **SMALL,
    **dict.fromkeys(_HIDDEN, 128),
    **dict.fromkeys(_WIDE, 256),
    **dict.fromkeys(_NARROW, 128),
    **dict.fromkeys(_SIXTEEN, 32),
}

# What a type needs besides, of its parts too; ROPE where its own default lacks one; and fields
# that released folders have and transformers' own configs have not.
_ROPE = {"rope_type": "default", "rope_theta": 10_000.0}
_MAMBAS = {"num_hidden_layers": 3, "layer_types": ["mamba", "hybrid", "hybrid"]}
_BARE = {"hidden_size_per_layer_input": 0, "vocab_size_per_layer_input": 0}
_PARTS = ("text_config", "vision_config", "audio_config", "attn_config")
SPECIAL: dict[str, dict[str, Any]] = {
    "afmoe": {"score_func": "sigmoid"},
    "blt": {"encoder_hash_byte_group_vocab": 96, "vocab_size": 260},
    "cohere_compass_text": {"rope_parameters": {"full_attention": _ROPE}},
    "codegen": {"rotary_dim": 16},
    "dbrx": {"attn_config": {"rope_theta": 10_000.0, "clip_qkv": 8.0}},
    "deepseek_v3": {"topk_method": "noaux_tc", "scoring_func": "sigmoid"},
    "deepseek_v4": {"layer_types": ["sliding_attention"] * 2, "mlp_layer_types": ["moe"] * 2},
    "dots1": {"n_shared_experts": 1},
    "dots3_note": {"vision_config": {"per_layer_config": {}}},
    "gemma4_assistant": {"text_config": {"model_type": "gemma4_text", **_BARE}},
    "gemma4_unified_assistant": {"text_config": {"model_type": "gemma4_unified_text"}},
    "glm4_moe": {"head_dim": 32},
    "glm4_moe_lite": {"first_k_dense_replace": 1},
    "gpt_bigcode": {"num_key_value_heads": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 16},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 8},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "reformer": {
        "is_decoder": True,
        "attn_layers": ["local", "lsh"],
        "axial_pos_embds": False,
        "feed_forward_size": 128,
        "attention_head_size": 16,
    },
    "xmod": {"default_language": "en_XX"},
    "zamba": _MAMBAS,
    "zamba2": {**_MAMBAS, "hybrid_layer_ids": [1, 2]},
    "zaya": {"num_experts_per_tok": 1},
}


def small(kind: str, sizes: Mapping[str, Any] = SMALL) -> Any:
    """Return a config of this type with few and narrow layers; all errors are transformers'.

    `sizes` are values by the names of fields, set where the config has them.
    """
    config = _constructed(kind, sizes)
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(config)
    return config


def _constructed(kind: str, sizes: Mapping[str, Any]) -> Any:
    """Return a config whose constructor was told, for what it works out of other fields."""
    said: dict[str, Any] = {}
    with contextlib.suppress(StrictDataclassClassValidationError, ValueError):  # no defaults
        said = _told(AutoConfig.for_model(kind), sizes)
    for name, value in SPECIAL.get(kind, {}).items():
        whole = {**_of_part(said.get(name), value, sizes), **value} if name in _PARTS else value
        said[name] = whole
    return AutoConfig.for_model(kind, **said)


def _of_part(
    said: dict[str, Any] | None, special: dict[str, Any], sizes: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a part is told: as the whole's own part, else as its type."""
    if said is None and "model_type" in special:
        return _told(AutoConfig.for_model(special["model_type"]), sizes)
    return said or {}


def _told(part: Any, sizes: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the constructor of a config is told, for its parts too."""
    said: dict[str, Any] = {name: value for name, value in sizes.items() if _takes(part, name)}
    if _takes(part, "kv_lora_rank"):
        said["num_key_value_heads"] = sizes["num_attention_heads"]  # all heads share one latent
    for name in part.sub_configs:
        inner = getattr(part, name, None)
        if isinstance(inner, PreTrainedConfig):
            kind = {"model_type": inner.model_type} if inner.model_type else {}
            said[name] = {**kind, **_told(inner, sizes)}
    return said


def _takes(part: Any, name: str) -> bool:
    """Return whether a config has a field that can be set; some raise where layers differ."""
    if isinstance(getattr(type(part), name, None), property):
        return False
    try:
        return hasattr(part, name)
    except Exception:  # noqa: BLE001 - it is there, and differs from layer to layer
        return True


def on_disk(config: Any) -> dict[str, Spec]:
    """Return what transformers would save of a model, without making it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    saved = revert_weight_conversion(model, dict(model.state_dict()))
    return {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in saved.items()}


def save(config: Any, folder: Path, spread: float = 0.05) -> Path:
    """Save a model of random weights in float32; raises ValueError where it is not small.

    `spread` is the standard deviation of its weights; of embeddings that are the head too it is a
    third of it, so that a model is not sure of the token that it was given.
    """
    with torch.device("meta"):
        size = sum(w.numel() for w in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST:
        raise ValueError(f"has {size:,} parameters")
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    tied = _tied(model)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=spread / (3 if parameter is tied else 1))
        elif name.endswith("weight"):
            torch.nn.init.normal_(parameter, mean=1, std=0.05)
    model.save_pretrained(folder)
    return folder


def _tied(model: Any) -> torch.Tensor | None:
    """Return the weight of the embeddings where it is the head's."""
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    inner, outer = (getattr(part, "weight", None) for part in parts)
    return inner if inner is outer else None
