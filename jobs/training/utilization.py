"""How much of what a chip can compute a training uses (MFU), by the model's shapes alone.

A token costs 6 operations a weight that it is multiplied with: 2 in the forward pass, 4 in the
backward pass; of experts, those that it is sent to. Attention costs 6 a token before or behind it,
head and width, of queries and of values ("PaLM", Chowdhery et al., 2022, appendix B), as far as a
layer sees. Recurrent layers count by their weights alone. What is computed twice, by activation
checkpointing, counts once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from torch import nn

from orchestrator.job import Hardware, JobContext

_TERA = 1e12
_EXPERTS, _ROUTER = "experts", "router"
_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts")
_CHOSEN = ("num_experts_per_tok", "top_k_experts")
_STACKED = 3  # dimensions of experts in one tensor
_SEE_ALL = frozenset({"full_attention", "attention", "hybrid"})  # types of layers
_SEE = {  # by type, the field that says how many tokens a token sees
    "sliding_attention": "sliding_window",
    "hybrid_sliding": "sliding_window",
    "chunked_attention": "attention_chunk_size",
    "indexed_attention": "index_topk",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """What turns tokens a second into figures of a chip.

    Attributes:
        chips: How many train.
        flops: Floating-point operations of a token; `None` where they are not known.
        peak: Those that a chip does in a second; `None` where nobody publishes it.
    """

    chips: int
    flops: float | None
    peak: float | None

    def figures(self, tokens_per_second: float) -> dict[str, float]:
        """Return the metrics of a speed, of all chips together."""
        of_each = tokens_per_second / self.chips
        figures = {"train/tokens_per_second_per_chip": of_each}
        if self.peak is not None and self.flops is not None:
            figures["train/mfu"] = of_each * self.flops / self.peak
        return figures


def speed_of(ctx: JobContext, model: Any, *, dtype: str, width: int) -> Speed:  # noqa: ANN401 - a transformers model
    """Return what tells how well the chips are used; the first worker says where nobody can know.

    Args:
        ctx: The context.
        model: What is trained.
        dtype: The type that it multiplies in.
        width: Tokens that it takes at once.
    """
    peak, flops = peak_of(ctx.hardware, dtype), flops_per_token(model, width)
    why = None
    if peak is None:
        unknown = "is emulated" if ctx.hardware.emulated else f"has no published rate in {dtype}"
        why = f"{ctx.hardware.accelerator!r} {unknown}"
    elif flops is None:
        why = f"how many experts of a {model.config.model_type!r} a token goes to is not known"
    if why and ctx.rank == 0:
        ctx.log(f"train/mfu is not told: {why}")
    return Speed(chips=ctx.world_size, flops=flops, peak=peak)


def peak_of(hardware: Hardware, dtype: str) -> float | None:
    """Return the operations that a chip does in a second in a type, where that is published.

    An emulated chip has none: what it computes, the host does.
    """
    rate = None if hardware.emulated else hardware.tflops.get(dtype)
    return rate * _TERA if rate else None


def flops_per_token(model: Any, width: int) -> float | None:  # noqa: ANN401 - a transformers model
    """Return the operations of a training on a token, in rows of `width` tokens.

    `None` where nothing says how many experts a token goes to.
    """
    config = model.config.get_text_config()
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    kernels = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv1d)}
    weights = 0.0
    for name, weight in model.named_parameters():
        if weight.ndim < 2 or id(weight) in tables or name.endswith("bias"):  # noqa: PLR2004 - vectors
            continue
        stacked = weight.ndim == _STACKED and id(weight) not in kernels
        parts = name.split(".")
        of_experts = stacked or (_EXPERTS in parts and _ROUTER not in parts)
        share = _used(weight, config) if of_experts else 1.0
        if share is None:
            return None
        weights += weight.numel() * share
    head = model.get_output_embeddings()
    if head is not None and id(head.weight) in tables:
        weights += head.weight.numel()
    return 6.0 * (weights + _attention(config, width))


def _used(weight: nn.Parameter, config: Any) -> float | None:  # noqa: ANN401 - a transformers config
    """Return the share of experts that a token is multiplied with, if that is known."""
    chosen = _first(config, _CHOSEN)
    stacked = weight.ndim == _STACKED
    all_of_them = float(weight.shape[0]) if stacked else _first(config, _COUNTS)
    return min(1.0, chosen / all_of_them) if chosen and all_of_them else None


def _first(config: Any, fields: Sequence[str]) -> float | None:  # noqa: ANN401 - as above
    """Return the first of some fields that a config has; the mean where it is one a layer."""
    for field in fields:
        value = getattr(config, field, None)
        if value:
            return float(mean(value)) if isinstance(value, list | tuple) else float(value)
    return None


def _attention(config: Any, width: int) -> float:  # noqa: ANN401 - as above
    """Return what the layers multiply of a token with all that it sees: keys, and values."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0.0
    each = getattr(config, "head_dim", None) or config.hidden_size // heads
    keys = getattr(config, "qk_head_dim", None) or each
    values = getattr(config, "v_head_dim", None) or each
    return float(sum(_seen(config, width)) * heads * (keys + values))


def _seen(config: Any, width: int) -> Iterator[int]:  # noqa: ANN401 - as above
    """Yield how many tokens of a row a token sees, by layer."""
    types = getattr(config, "layer_types", None)
    if types is None:
        window = getattr(config, "sliding_window", None)
        types = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    for kind in types:
        if kind in _SEE_ALL:
            yield width
        elif kind in _SEE:
            yield min(width, getattr(config, _SEE[kind], None) or width)
