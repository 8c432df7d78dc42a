"""Every type of causal language model that transformers knows, made small."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from jobs.formats.headers import Spec

TYPES = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
MOST = 20_000_000  # parameters of a model that is small
# Fields by the names that types give them; each is set where the config has it.
_HIDDEN = ("hidden_size", "n_embd", "d_model", "word_embed_proj_dim", "emb_dim", "dim_model")
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
    "num_key_value_heads": 2,
    "num_experts_per_tok": 2,
    "max_position_embeddings": 64,
    "n_positions": 64,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}

# What a type needs besides.
SPECIAL: dict[str, dict[str, Any]] = {
    "deepseek_v4": {"layer_types": ["sliding_attention"] * 2, "mlp_layer_types": ["moe"] * 2},
    "qwen3_next": {"layer_types": ["linear_attention", "full_attention"]},
    "reformer": {"is_decoder": True},
}


def small(kind: str) -> Any:
    """Return a config of this type with few and narrow layers, or as it comes if it must be."""
    for attempt in (_constructed, _changed, AutoConfig.for_model):
        with contextlib.suppress(Exception), torch.device("meta"):
            config = attempt(kind)
            AutoModelForCausalLM.from_config(config)
            return config
    raise ValueError(f"no model can be made of the config of a {kind}")


def _constructed(kind: str) -> Any:
    """Return a config whose constructor was told, for what it works out of other fields."""
    plain = AutoConfig.for_model(kind)
    told = {name: value for name, value in SMALL.items() if hasattr(plain, name)}
    if hasattr(plain, "kv_lora_rank"):
        told["num_key_value_heads"] = SMALL["num_attention_heads"]  # all heads share one latent
    return AutoConfig.for_model(kind, **{**told, **SPECIAL.get(kind, {})})


def _changed(kind: str) -> Any:
    """Return a config whose parts were changed after they were made."""
    config = AutoConfig.for_model(kind)
    for part in _parts(config):
        for name, value in SMALL.items():
            if hasattr(part, name) and not isinstance(getattr(type(part), name, None), property):
                with contextlib.suppress(Exception):
                    setattr(part, name, value)
    return config


def on_disk(config: Any) -> dict[str, Spec]:
    """Return what transformers would save of a model, without making it."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    saved = revert_weight_conversion(model, dict(model.state_dict()))
    return {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in saved.items()}


def save(config: Any, folder: Path) -> Path:
    """Save a model of random weights in float32; raises ValueError where it is not small."""
    with torch.device("meta"):
        size = sum(w.numel() for w in AutoModelForCausalLM.from_config(config).parameters())
    if size > MOST:
        raise ValueError(f"has {size:,} parameters")
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.05)
        elif name.endswith("weight"):
            torch.nn.init.normal_(parameter, mean=1, std=0.05)
    model.save_pretrained(folder)
    return folder


def _parts(config: Any) -> Iterator[Any]:
    yield config
    with contextlib.suppress(Exception):
        text = config.get_text_config()
        if text is not config:
            yield text
