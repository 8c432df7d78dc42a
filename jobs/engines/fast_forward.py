"""The forward pass of plain decoders (Llama and its kin), without the cost of their modules.

It computes what the model's own forward does, from the same weights, in fewer and larger steps:
one product for query, key and value, one for both halves of the MLP, rotations from a table,
masks only where rows differ. An engine compares it with the model's forward before it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.engines.cache import SlotCache, Span, mask_of
from jobs.engines.forward import padded

KIN = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
FEW = 256  # rows
STEADY_ROPES = frozenset({"default", "linear", "llama3", "yarn"})  # others change with the length


def fits(model: Any) -> bool:  # noqa: ANN401 - foreign and untyped
    """Whether this pass computes what `model` does."""
    config = model.config
    return (
        type(model).__name__ in KIN
        and config.hidden_act == "silu"
        and (config.rope_parameters or {}).get("rope_type") in STEADY_ROPES
    )


class FastForward:
    """The pass of a model that `fits`. The model's weights become views of what it holds."""

    @torch.no_grad()
    def __init__(self, model: Any, max_context: int) -> None:  # noqa: ANN401 - as above
        config, inner = model.config, model.model
        attention = inner.layers[0].self_attn
        self._device = model.device
        self._dtype = model.dtype
        self._heads = (config.num_attention_heads, config.num_key_value_heads, attention.head_dim)
        self._embedding = inner.embed_tokens.weight
        self._layers = [_DecoderLayer(layer, self._heads) for layer in inner.layers]
        self._norm = _Norm(inner.norm)
        self._head = model.lm_head.weight
        places = torch.arange(max_context, device=self._device)[None]
        cos, sin = inner.rotary_emb(self._embedding[:1], places)
        half = self._heads[2] // 2
        # rotate_half(x) * sin is roll(x) * sin, with the sign in sin.
        sin = torch.cat((-sin[..., :half], sin[..., half:]), -1)
        self._turns = torch.stack((cos[0], sin[0]), 1)

    def __call__(
        self, new: Sequence[Sequence[int]], cache: SlotCache, *, every: bool = False
    ) -> Tensor:
        """Read the `new` tokens of each row of the span that `cache` covers."""
        span = cache.span
        ids = padded(new, span.width, self._device).flatten()
        hidden = functional.embedding(ids, self._embedding)
        cos, sin = self._turns[span.positions.flatten()][:, :, None].unbind(1)
        masks = {window: self._mask(span, window) for window in set(cache.windows)}
        for layer, held, window in zip(self._layers, cache.layers, cache.windows, strict=True):
            mixed = layer.project(hidden)
            heads = layer.turn(mixed, cos, sin)
            query, keys, values = heads.tensor_split(layer.bounds, 1)
            keys, values = held.store(keys, values)
            seen = self._attend(query, keys, values, span, masks[window])
            hidden = layer.finish(hidden, seen)
        last = hidden
        if span.width > 1 and not every:
            ends = [row * span.width + len(tokens) - 1 for row, tokens in enumerate(new)]
            last = hidden[torch.tensor(ends, device=self._device)]
        scores = _linear(self._norm(last), self._head).contiguous()
        return scores.view(len(new), span.width, -1) if every else scores

    def _mask(self, span: Span, window: int | None) -> Tensor | None:
        """Return a mask, where there is something to hide that a causal pass would not."""
        alone = span.width == 1 and span.stop - span.start == 1
        if (alone or span.fresh) and (window is None or span.length <= window):
            return None
        return mask_of(span, self._dtype, window)

    def _attend(
        self, query: Tensor, keys: Tensor, values: Tensor, span: Span, mask: Tensor | None
    ) -> Tensor:
        """Return what each new token sees (rows * width, heads * size)."""
        heads, groups, size = self._heads
        rows = span.stop - span.start
        if span.width == 1:  # the heads of a group see the same: they are the queries of one head
            packed = query.reshape(rows, groups, heads // groups, size)
            seen = functional.scaled_dot_product_attention(packed, keys, values, attn_mask=mask)
            return seen.reshape(rows, heads * size)
        query = query.reshape(rows, span.width, heads, size).transpose(1, 2)
        seen = functional.scaled_dot_product_attention(
            query,
            keys.repeat_interleave(heads // groups, 1),
            values.repeat_interleave(heads // groups, 1),
            attn_mask=mask,
            is_causal=mask is None,
        )
        return seen.transpose(1, 2).reshape(rows * span.width, heads * size)


class _Norm:
    """A root-mean-square norm."""

    def __init__(self, module: Any) -> None:  # noqa: ANN401 - as above
        self._weight = module.weight
        self._eps = module.variance_epsilon
        self._least = torch.tensor(self._eps, device=self._weight.device)
        self._share = 1 / self._weight.numel()
        self._float32 = self._weight.dtype == torch.float32

    def __call__(self, hidden: Tensor) -> Tensor:
        if not self._float32:  # sums of a narrow type need a wide one
            return torch.rms_norm(hidden, self._weight.shape, self._weight, self._eps)
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        scale = torch.addcmul(self._least, length, length, value=self._share).rsqrt_()
        return (hidden * scale).mul_(self._weight)


class _DecoderLayer:
    """The weights of a layer, those side by side that are used side by side."""

    def __init__(self, layer: Any, heads: tuple[int, int, int]) -> None:  # noqa: ANN401 - as above
        attention, mlp = layer.self_attn, layer.mlp
        self._turned = heads[0] + heads[1]
        self.bounds = (heads[0], self._turned)
        self._shape = (self._turned + heads[1], heads[2])
        self._before = _Norm(layer.input_layernorm)
        self._after = _Norm(layer.post_attention_layernorm)
        self._mix = _side_by_side(attention.q_proj, attention.k_proj, attention.v_proj)
        self._norms = [
            _Norm(n)
            for n in (getattr(attention, "q_norm", None), getattr(attention, "k_norm", None))
            if n
        ]
        self._out = (attention.o_proj.weight, attention.o_proj.bias)
        self._gate_up = _side_by_side(mlp.gate_proj, mlp.up_proj)
        self._down = (mlp.down_proj.weight, mlp.down_proj.bias)
        self._inner = mlp.gate_proj.out_features

    def project(self, hidden: Tensor) -> Tensor:
        """Return query, key and value heads side by side."""
        mixed = _linear(self._before(hidden), *self._mix).contiguous()
        return mixed.view(-1, *self._shape)

    def turn(self, mixed: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Normalise query and key heads where the model does, and rotate them."""
        turned = mixed[:, : self._turned]
        if self._norms:
            parts = turned.tensor_split(self.bounds[:1], 1)
            turned = torch.cat([n(part) for n, part in zip(self._norms, parts, strict=True)], 1)
        half = self._shape[1] // 2
        straight = turned * cos
        mixed[:, : self._turned] = straight.addcmul_(turned.roll(half, -1), sin)
        return mixed

    def finish(self, hidden: Tensor, seen: Tensor) -> Tensor:
        """Return the layer's result from its input and what attention saw."""
        hidden = hidden + _linear(seen, *self._out)
        gate, up = _linear(self._after(hidden), *self._gate_up).tensor_split(2, -1)
        return hidden + _linear(functional.silu(gate).mul_(up), *self._down)


def _linear(rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return `functional.linear`; its memory may be that of the transposed result.

    A CPU computes a few rows up to twice as fast in float32 where the weight is what comes first.
    """
    plain = rows.device.type == "cpu" and rows.dtype == torch.float32
    if not plain or not 1 < len(rows) <= FEW:
        return functional.linear(rows, weight, bias)
    product = weight @ rows.t()
    return (product if bias is None else product.add_(bias[:, None])).t()


def _side_by_side(*linears: nn.Linear) -> tuple[Tensor, Tensor | None]:
    """Join the weights of linear layers into one, of which their own become parts."""
    weight = torch.cat([linear.weight for linear in linears])
    bias = torch.cat([linear.bias for linear in linears]) if linears[0].bias is not None else None
    begin = 0
    for linear in linears:
        end = begin + linear.out_features
        linear.weight.data = weight[begin:end]
        if bias is not None:
            linear.bias.data = bias[begin:end]
        begin = end
    return weight, bias
