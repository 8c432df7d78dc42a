"""Tiny models of several architectures, and folders of them in each format."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

from jobs.formats import modelslim
from jobs.formats.choice import choose
from jobs.formats.conversion import Conversion
from jobs.formats.folder import Folder
from jobs.formats.records import KEY, record
from jobs.formats.schemes import MODELSLIM, PLAIN, scheme_for
from jobs.formats.sink import SHARD

LAYERS: dict[str, Any] = {
    "vocab_size": 96,
    "num_hidden_layers": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 1,
}
# Sizes are whole blocks, or less than one: of others transformers makes out wrong blocks.
TINY: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    "qwen3": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "tie_word_embeddings": True,
    },
    "deepseek_v3": {
        "hidden_size": 128,
        "intermediate_size": 256,
        "moe_intermediate_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "n_routed_experts": 4,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "n_group": 2,
        "topk_group": 1,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 16,
        "qk_rope_head_dim": 16,
        "v_head_dim": 16,
    },
}


def save_tiny(folder: Path, kind: str, **changes: Any) -> Path:
    """Save a model of random weights in float32."""
    logging.disable_progress_bar()
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{**LAYERS, **TINY[kind], **changes})
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(buffer, std=0.05)
    model.save_pretrained(folder)
    return folder


def convert(
    source: Path, target: Path, form: str, *, shard: int = SHARD, dialect: str = "vllm"
) -> Path:
    """Convert a folder, config and all."""
    target.mkdir(exist_ok=True)
    config = AutoConfig.from_pretrained(source)
    read = Folder(source)
    choice = choose(config, read.specs, scheme_for(form, dialect))
    Conversion(source=read, form=form, choice=choice, dialect=dialect, threads=2, shard=shard).run(
        target
    )
    if hasattr(config, KEY):
        delattr(config, KEY)
    config.dtype = PLAIN.get(form, torch.bfloat16)
    said = record(form, choice.ignored, dialect)
    if said is not None:
        setattr(config, KEY, said)
    config.save_pretrained(target)
    if dialect == MODELSLIM:
        modelslim.write(target, form, read.specs, choice.quantized)
    return target


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    """The scores for a plain prompt."""
    found: torch.Tensor = model(input_ids=torch.arange(2, 42)[None]).logits
    return found
