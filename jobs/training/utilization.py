"""How much of what a chip can compute a training uses (MFU), by the model's shapes alone.

A token costs 6 operations a weight that it is multiplied with: 2 in the forward pass, 4 in the
backward pass; of experts, those that it is sent to. Attention costs 6 a token before or behind it,
head and width, of queries and of values ("PaLM", Chowdhery et al., 2022, appendix B). What is
computed twice, by activation checkpointing, counts once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from orchestrator.job import Hardware

_TERA = 1e12
_EXPERTS = "experts"
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_STACKED = 3  # dimensions of experts in one tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What turns tokens a second into figures of a chip.

    Attributes:
        chips: How many train.
        flops: Floating-point operations of a token.
        peak: Those that a chip does in a second; `None` where nobody publishes it.
    """

    chips: int
    flops: float
    peak: float | None

    def figures(self, tokens_per_second: float) -> dict[str, float]:
        """Return the metrics of a speed, of all chips together."""
        of_each = tokens_per_second / self.chips
        figures = {"train/tokens_per_second_per_chip": of_each}
        if self.peak is not None:
            figures["train/mfu"] = of_each * self.flops / self.peak
        return figures


def peak_of(hardware: Hardware, dtype: str) -> float | None:
    """Return the operations that a chip does in a second in a type, where that is published.

    An emulated chip has none: what it computes, the host does.
    """
    rate = None if hardware.emulated else hardware.tflops.get(dtype)
    return rate * _TERA if rate else None


def flops_per_token(model: Any, width: int) -> float:  # noqa: ANN401 - a transformers model
    """Return the operations of a training on a token, in rows of `width` tokens."""
    config = model.config.get_text_config()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    weights = 0.0
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and id(weight) not in tables:
            weights += weight.numel() * _used(name, weight, config)
    head = model.get_output_embeddings()
    if head is not None and id(head.weight) in tables:
        weights += head.weight.numel()
    return 6.0 * (weights + width * _attention(config))


def _used(name: str, weight: nn.Parameter, config: Any) -> float:  # noqa: ANN401 - a transformers config
    """Return the share of a weight that a token is multiplied with."""
    if _EXPERTS not in name.split("."):
        return 1.0
    chosen = getattr(config, "num_experts_per_tok", None) or getattr(config, "top_k_experts", 0)
    counts = (getattr(config, field, None) for field in _COUNTS)
    all_of_them = weight.shape[0] if weight.ndim == _STACKED else next(filter(None, counts), None)
    return min(1.0, chosen / all_of_them) if chosen and all_of_them else 1.0


def _attention(config: Any) -> float:  # noqa: ANN401 - as above
    """Return what the layers multiply of a token with each other one: keys, and values."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0.0
    each = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "qk_head_dim", None) or each
    values = getattr(config, "v_head_dim", None) or each
    return float(config.num_hidden_layers * heads * (keys + values))
