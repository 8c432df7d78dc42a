"""Parameters of a training that takes a second."""

from __future__ import annotations

from typing import Any

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
SMALL_EXPERTS = {
    "hidden_size": 32,
    "moe_intermediate_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
# Widths of latent attention, but for that of values.
LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}
SHORT: dict[str, Any] = {
    "model": SMALL,
    "steps": 24,
    "batch_size": 16,
    "learning_rate": 2e-3,
    "warmup": 4,
    "beta2": 0.98,
    "log_every": 1,
    "validate_every": 12,
    "validation_rows": 16,
    "checkpoint_every": 10,
}
