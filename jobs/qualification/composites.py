"""What fused operators are made of, how torch and makers call them, and what they are given."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as nn

from jobs.data.dataset import IGNORE

EPSILON, RATE, DECAY, STEPS = 1e-6, 0.1, 0.1, 3
BETAS, TINY = (0.9, 0.95), 1e-8


@dataclass(frozen=True, slots=True)
class Draw:
    """Draws what operators are given: at real sizes, or at those of a host."""

    generator: torch.Generator
    real: bool

    def size(self, real: int, of_host: int) -> int:
        """Return one of two sizes."""
        return real if self.real else of_host

    def normal(self, *shape: int) -> Tensor:
        """Return normal numbers, float32."""
        return torch.randn(shape, generator=self.generator)

    def whole(self, below: int, *shape: int) -> Tensor:
        """Return whole numbers from 0."""
        return torch.randint(below, shape, generator=self.generator)


# --- norms and gates ----------------------------------------------------------------------------


def some_rows(draw: Draw) -> list[Tensor]:
    """Return rows [rows, width], half of them as small as the root of epsilon, and weights."""
    rows, width = draw.size(512, 24), draw.size(4096, 64)
    small = torch.where(torch.arange(rows) % 2 == 0, 1.0, EPSILON**0.5)
    return [draw.normal(rows, width) * small[:, None], 1 + 0.1 * draw.normal(width)]


def rms_norm(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows [..., width] whose mean square is 1, times the weights."""
    return rows * (rows.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight


def torch_rms_norm(rows: Tensor, weight: Tensor) -> Tensor:
    """Do the same by torch."""
    return nn.rms_norm(rows, weight.shape, weight, EPSILON)


def rows_with_bias(draw: Draw) -> list[Tensor]:
    """Return the same, and a bias."""
    rows, weight = some_rows(draw)
    return [rows, weight, draw.normal(weight.numel())]


def layer_norm(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return rows [..., width] of mean 0 and variance 1, times the weights, and the bias."""
    centred = rows - rows.mean(-1, keepdim=True)
    return rms_norm(centred, weight) + bias


def torch_layer_norm(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Do the same by torch."""
    return nn.layer_norm(rows, weight.shape, weight, bias, EPSILON)


def gated(draw: Draw) -> list[Tensor]:
    """Return gates and values [rows, 2 width]."""
    return [3 * draw.normal(draw.size(512, 24), 2 * draw.size(4096, 64))]


def swiglu(both: Tensor) -> Tensor:
    """Return [..., width] of gates and values [..., 2 width]."""
    gate, value = both.chunk(2, -1)
    return gate / (1 + (-gate).exp()) * value


def torch_swiglu(both: Tensor) -> Tensor:
    """Do the same by torch."""
    gate, value = both.chunk(2, -1)
    return nn.silu(gate) * value


# --- positions and attention --------------------------------------------------------------------


def with_angles(draw: Draw) -> list[Tensor]:
    """Return [batch, heads, length, width], and the cosines and sines of its places."""
    length, width = draw.size(2048, 24), draw.size(128, 16)
    turns = 1.0 / 10_000 ** (torch.arange(0, width, 2) / width)
    angles = torch.outer(torch.arange(length).float(), turns).repeat(1, 2)[None, None]
    return [draw.normal(1, draw.size(8, 2), length, width), angles.cos(), angles.sin()]


def rotary(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + width / 2) of [batch, heads, length, width], as Llama does."""
    first, second = states.chunk(2, -1)
    half = cosines.shape[-1] // 2
    cos, sin = cosines[..., :half], sines[..., :half]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def torch_rotary(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Do the same as transformers does."""
    first, second = states.chunk(2, -1)
    return states * cosines + torch.cat((-second, first), -1) * sines


def complex_rotary(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Do the same by complex numbers, as DeepSeek and Llama 4 do with their own order of pairs."""
    half = cosines.shape[-1] // 2
    pairs = torch.stack(states.float().chunk(2, -1), -1).contiguous()
    turns = torch.complex(cosines[..., :half].float(), sines[..., :half].float())
    turned = torch.view_as_real(torch.view_as_complex(pairs) * turns)
    return torch.cat((turned[..., 0], turned[..., 1]), -1).to(states)


def attended(draw: Draw, *, groups: int = 1, new: int = 0) -> list[Tensor]:
    """Return queries, keys and values [batch, heads, length, width]; of the last `new` queries."""
    heads, length = draw.size(16, 8), draw.size(1024, 40)
    width = draw.size(128, 16)
    keys = [draw.normal(2, heads // groups, length, width) for _ in range(2)]
    return [draw.normal(2, heads, new or length, width), *keys]


def masked(draw: Draw) -> list[Tensor]:
    """Return the same with a mask [batch, 1, length, length]: causal, padded on the left."""
    query, key, value = attended(draw, groups=4)
    length = query.shape[-2]
    places = torch.arange(length)
    begins = torch.tensor([0, length // 3])[:, None, None, None]
    seen = (places <= places[:, None]) & (places >= begins)
    return [query, key, value, seen | torch.eye(length, dtype=torch.bool)]


def attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attend to what is `seen`; without that, to what is not later than the query."""
    groups = query.shape[1] // key.shape[1]
    key, value = (tensor.repeat_interleave(groups, 1) for tensor in (key, value))
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if seen is None:
        asked, length = scores.shape[-2:]
        seen = torch.ones(asked, length, dtype=torch.bool).tril(length - asked)
    output: Tensor = scores.masked_fill(~seen.to(scores.device), float("-inf")).softmax(-1) @ value
    return output


def sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None = None,
    *,
    causal: bool,
    grouped: bool,
) -> Tensor:
    """Do the same by torch."""
    return nn.scaled_dot_product_attention(
        query, key, value, seen, is_causal=causal, enable_gqa=grouped
    )


# --- experts ------------------------------------------------------------------------------------


def by_expert(draw: Draw) -> list[Tensor]:
    """Return tokens [tokens, width] in order of their experts, weights, and where each ends.

    One expert has no token, one has a single one.
    """
    tokens, width = draw.size(2048, 48), draw.size(1024, 32)
    ends = torch.tensor([tokens // 3, tokens // 3, tokens // 3 + 1, tokens], dtype=torch.int32)
    return [draw.normal(tokens, width), draw.normal(len(ends), width, 2 * width), ends]


def grouped(tokens: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Multiply the tokens of each expert by its weights: [tokens, width of the result]."""
    sizes = ends.diff(prepend=ends.new_zeros(1)).tolist()
    parts = zip(torch.split(tokens, sizes), weights, strict=True)
    return torch.cat([part @ weight for part, weight in parts])


def torch_grouped(tokens: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Do the same by torch."""
    return nn.grouped_mm(tokens, weights, offs=ends)


def batches(draw: Draw) -> list[Tensor]:
    """Return tokens [experts, tokens, width], and weights."""
    tokens, width = draw.size(512, 24), draw.size(1024, 32)
    return [draw.normal(4, tokens, width), draw.normal(4, width, 2 * width)]


def batched(tokens: Tensor, weights: Tensor) -> Tensor:
    """Multiply [experts, tokens, width] by [experts, width, width of the result]."""
    return torch.stack([rows @ weight for rows, weight in zip(tokens, weights, strict=True)])


# --- the loss and the optimizer -----------------------------------------------------------------


def scored(draw: Draw) -> list[Tensor]:
    """Return scores [rows, tokens], and labels, each fourth of which is none."""
    rows, tokens = draw.size(512, 24), draw.size(32_000, 97)
    labels = draw.whole(tokens, rows)
    labels[::4] = IGNORE
    return [3 * draw.normal(rows, tokens), labels]


def cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Return the summed negative log-likelihood of the labels, nats."""
    kept = labels != IGNORE
    chosen = scores[kept].gather(1, labels[kept][:, None])[:, 0]
    return (scores[kept].logsumexp(-1) - chosen).sum()


def torch_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    """Do the same by torch."""
    return nn.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="sum")


def trained(draw: Draw) -> list[Tensor]:
    """Return weights and their gradients [rows, width]; some rows as small as the epsilon."""
    rows, width = draw.size(1024, 24), draw.size(1031, 37)
    small = torch.where(torch.arange(rows) % 3 == 0, TINY, 1.0)
    return [0.02 * draw.normal(rows, width), draw.normal(rows, width) * small[:, None]]


def adamw(weights: Tensor, slopes: Tensor) -> Tensor:
    """Return the weights after a few steps of AdamW, each with these gradients."""
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    for step in range(1, STEPS + 1):
        weights = weights * (1 - RATE * DECAY)
        first = BETAS[0] * first + (1 - BETAS[0]) * slopes
        second = BETAS[1] * second + (1 - BETAS[1]) * slopes.square()
        mean, square = first / (1 - BETAS[0] ** step), second / (1 - BETAS[1] ** step)
        weights = weights - RATE * mean / (square.sqrt() + TINY)
    return weights


def torch_adamw(weights: Tensor, slopes: Tensor, *, flags: Mapping[str, bool]) -> Tensor:
    """Do the same on several tensors at once."""
    sizes = [1, len(weights) // 3, len(weights) - 1 - len(weights) // 3]
    parts = [torch.nn.Parameter(part.clone()) for part in torch.split(weights, sizes)]
    for part, slope in zip(parts, torch.split(slopes, sizes), strict=True):
        part.grad = slope.clone()
    optimizer = torch.optim.AdamW(
        parts, lr=RATE, betas=BETAS, eps=TINY, weight_decay=DECAY, **flags
    )
    for _ in range(STEPS):
        optimizer.step()
    return torch.cat([part.detach() for part in parts])


# --- a maker's own ------------------------------------------------------------------------------


def _npu(name: str) -> Any:  # noqa: ANN401 - an operator of torch_npu
    return getattr(sys.modules["torch_npu"], name)


def npu_rms_norm(rows: Tensor, weight: Tensor) -> Tensor:
    """Do `rms_norm` by torch_npu."""
    normed: Tensor = _npu("npu_rms_norm")(rows, weight, epsilon=EPSILON)[0]
    return normed


def npu_rotary(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Do `rotary` by torch_npu."""
    rotated: Tensor = _npu("npu_rotary_mul")(states, cosines, sines)
    return rotated


def npu_swiglu(both: Tensor) -> Tensor:
    """Do `swiglu` by torch_npu."""
    activated: Tensor = _npu("npu_swiglu")(both, dim=-1)
    return activated


def npu_attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Do `attention` by torch_npu."""
    scale = query.shape[-1] ** -0.5
    hidden: dict[str, Any] = {"atten_mask": ~seen, "scale": scale, "input_layout": "BNSD"}
    output: Tensor = _npu("npu_fusion_attention")(query, key, value, query.shape[1], **hidden)[0]
    return output
