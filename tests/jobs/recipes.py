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
