"""Operators that do several things at once, against what they are made of, in float64 on the host.

What training and serving use of torch, and what a maker's own package adds (`torch_npu`): one
table. A kernel may round as often as its row says, by the format of its results; sums of products
in float32 may be made of TF32. Each row of a result is measured by itself, so that small ones
count; gradients, which cancel out here and there, by the largest of them all.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as nn

from jobs.data.dataset import IGNORE
from jobs.qualification.bench import (
    BOTH,
    FAILED,
    LIMITED,
    PASSED,
    SERVE,
    SKIPPED,
    TRAIN,
    Bench,
    one_line,
)
from jobs.qualification.coverage import missing

Function: TypeAlias = Callable[..., Tensor]
Given: TypeAlias = Callable[["Draw"], list[Tensor]]

CHECK = "fused"
EPSILON, RATE, DECAY, STEPS = 1e-6, 0.1, 0.1, 3
BETAS, TINY = (0.9, 0.95), 1e-8
_TF32 = 2.0**-10
_LEAST_SCALE = 2.0**-8  # of the largest value: what is smaller than that is measured by that


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """An operator.

    Attributes:
        name: What it is called.
        given: Draws its arguments, float32 or whole numbers.
        learnt: So many of the first arguments have gradients, which are compared too.
        operator: The operator.
        composite: What it is made of.
        roundings: How often its result may have been rounded to its format.
        products: Whether it adds up products.
        dtypes: The number types that it is used in.
        roles: The roles that use it.
        package: The maker's package that has it, where torch itself does not.
        covers: What the names of its operators in torch's dispatcher begin with.
    """

    name: str
    given: Given
    learnt: int
    operator: Function
    composite: Function
    roundings: float = 4.0
    products: bool = False
    dtypes: tuple[torch.dtype, ...] = (torch.bfloat16, torch.float32)
    roles: tuple[str, ...] = BOTH
    package: str = ""
    covers: tuple[str, ...] = ()

    def allowed(self, dtype: torch.dtype) -> float:
        """Return how far a result may be off, as a share of the largest value of its row."""
        if dtype is torch.float32:  # sums are made in it too, of a few thousand numbers
            return self.roundings * (_TF32 if self.products else 16 * torch.finfo(dtype).eps)
        return self.roundings * torch.finfo(dtype).eps


def check_fused(
    bench: Bench, devices: Sequence[torch.device], formats: Sequence[str], roles: Sequence[str]
) -> None:
    """Compare each operator of the table that the roles use, on each device."""
    kind = bench.device.type
    dtypes = [torch.float32, *([torch.bfloat16] if "bf16" in formats else [])]
    for fused in table_of(kind):
        for dtype in dtypes:
            if dtype in fused.dtypes and set(roles) & set(fused.roles):
                bench.alive()
                _check(bench, fused, dtype, devices)


def table_of(kind: str) -> Iterator[Fused]:
    """Yield the operators that a device of this type has: torch's, and those of its package."""
    for fused in TABLE:
        module = sys.modules.get(fused.package)
        if not fused.package or (fused.package == f"torch_{kind}" and hasattr(module, fused.name)):
            yield fused


def covered(name: str, kind: str) -> bool:
    """Whether the table has what torch's dispatcher calls `name` on a device of this type."""
    return any(name.startswith(one) for fused in table_of(kind) for one in fused.covers)


def _check(
    bench: Bench, fused: Fused, dtype: torch.dtype, devices: Sequence[torch.device]
) -> None:
    generator = torch.Generator().manual_seed(bench.ctx.seed)
    given = fused.given(Draw(generator, bench.real))
    given = [one.to(dtype) if one.is_floating_point() else one for one in given]
    exact = [one.double() if one.is_floating_point() else one for one in given]
    wanted = passes(fused.composite, exact, fused.learnt)
    for device in devices:
        subject = f"{fused.name} {str(dtype).removeprefix('torch.')} {device}"
        status, far, note = _compared(fused, dtype, [one.to(device) for one in given], wanted)
        if status == LIMITED and not bench.real:
            status = SKIPPED
        bench.say(CHECK, subject, status, figure=far, note=note, roles=fused.roles)


def _compared(
    fused: Fused, dtype: torch.dtype, given: Sequence[Tensor], wanted: Sequence[Tensor]
) -> tuple[str, float | None, str]:
    """Return a status, how far the operator is off, and what there is to know."""
    try:
        found = passes(fused.operator, given, fused.learnt)
    except RuntimeError as error:
        lacks = missing(error)
        said = "can't be tried here, so nobody has tested it" if lacks else "raises"
        return LIMITED if lacks else FAILED, None, f"{said}: {one_line(error)}"
    far, allowed = apart(found, wanted), fused.allowed(dtype)
    note = f"differs from a composite by {far:.1e} of the largest, {allowed:.0e} is allowed"
    return PASSED if far <= allowed else FAILED, far, note


def passes(function: Function, given: Sequence[Tensor], learnt: int) -> list[Tensor]:
    """Return the result and the gradients of the first `learnt` arguments, float64 on the host.

    The gradient of the result is a fixed one.
    """
    inputs = [one.requires_grad_(place < learnt) for place, one in enumerate(_copies(given))]
    with torch.set_grad_enabled(learnt > 0):
        out = function(*inputs)
    grads: Sequence[Tensor] = ()
    if learnt:
        generator = torch.Generator().manual_seed(out.numel())
        slope = torch.randn(out.shape, generator=generator).bfloat16().to(out)
        grads = torch.autograd.grad(out, inputs[:learnt], slope)
    return [one.detach().cpu().double() for one in (out, *grads)]


def _copies(given: Sequence[Tensor]) -> Iterator[Tensor]:
    return (one.detach().clone() for one in given)


def apart(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Return the largest difference, as a share of the largest value of its row; NaN is kept.

    The first is a result, the others are gradients: these have no rows.
    """
    pairs = enumerate(zip(found, wanted, strict=True))
    errors = [_apart(one, other, by_row=place == 0) for place, (one, other) in pairs]
    return max(errors, key=lambda error: (error != error, error))  # noqa: PLR0124 - NaN is none


def _apart(found: Tensor, wanted: Tensor, *, by_row: bool) -> float:
    if found.shape != wanted.shape:
        return float("inf")
    width = wanted.shape[-1] if by_row and wanted.dim() else wanted.numel()
    one, other = found.reshape(-1, width), wanted.reshape(-1, width)
    largest = other.abs().amax(-1)
    scale = largest.clamp(min=float(largest.max()) * _LEAST_SCALE or 1.0)
    return float(((one - other).abs().amax(-1) / scale).max())


# --- norms and gates ----------------------------------------------------------------------------


def _rows(draw: Draw) -> list[Tensor]:
    """Return rows [rows, width], half of them as small as the root of epsilon, and weights."""
    rows, width = draw.size(512, 24), draw.size(4096, 64)
    small = torch.where(torch.arange(rows) % 2 == 0, 1.0, EPSILON**0.5)
    return [draw.normal(rows, width) * small[:, None], 1 + 0.1 * draw.normal(width)]


def rms_norm(rows: Tensor, weight: Tensor) -> Tensor:
    """Return rows [..., width] whose mean square is 1, times the weights."""
    return rows * (rows.square().mean(-1, keepdim=True) + EPSILON).rsqrt() * weight


def _torch_rms_norm(rows: Tensor, weight: Tensor) -> Tensor:
    return nn.rms_norm(rows, weight.shape, weight, EPSILON)


def _layer_norm_rows(draw: Draw) -> list[Tensor]:
    rows, weight = _rows(draw)
    return [rows, weight, draw.normal(weight.numel())]


def layer_norm(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return rows [..., width] of mean 0 and variance 1, times the weights, and the bias."""
    centred = rows - rows.mean(-1, keepdim=True)
    return rms_norm(centred, weight) + bias


def _torch_layer_norm(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return nn.layer_norm(rows, weight.shape, weight, bias, EPSILON)


def _gated(draw: Draw) -> list[Tensor]:
    return [3 * draw.normal(draw.size(512, 24), 2 * draw.size(4096, 64))]


def swiglu(both: Tensor) -> Tensor:
    """Return [..., width] of gates and values [..., 2 width]."""
    gate, value = both.chunk(2, -1)
    return gate / (1 + (-gate).exp()) * value


def _torch_swiglu(both: Tensor) -> Tensor:
    gate, value = both.chunk(2, -1)
    return nn.silu(gate) * value


# --- positions and attention --------------------------------------------------------------------


def _rotated(draw: Draw) -> list[Tensor]:
    """Return [batch, heads, length, width], and the cosines and sines of its places."""
    length, width = draw.size(2048, 24), draw.size(128, 16)
    turns = 1.0 / 10_000 ** (torch.arange(0, width, 2) / width)
    angles = torch.outer(torch.arange(length).float(), turns).repeat(1, 2)[None, None]
    return [draw.normal(1, draw.size(8, 2), length, width), angles.cos(), angles.sin()]


def rotary(given: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + width / 2) of [batch, heads, length, width], as Llama does."""
    first, second = given.chunk(2, -1)
    half = cosines.shape[-1] // 2
    cos, sin = cosines[..., :half], sines[..., :half]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def _torch_rotary(given: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    first, second = given.chunk(2, -1)
    return given * cosines + torch.cat((-second, first), -1) * sines


def _complex_rotary(given: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Do the same by complex numbers, as DeepSeek and Llama 4 do with their own order of pairs."""
    half = cosines.shape[-1] // 2
    pairs = torch.stack(given.float().chunk(2, -1), -1).contiguous()
    turns = torch.complex(cosines[..., :half].float(), sines[..., :half].float())
    turned = torch.view_as_real(torch.view_as_complex(pairs) * turns)
    return torch.cat((turned[..., 0], turned[..., 1]), -1).to(given)


def _attended(draw: Draw, *, groups: int = 1, new: int = 0) -> list[Tensor]:
    """Return queries, keys and values [batch, heads, length, width]; of the last `new` queries."""
    heads, length = draw.size(16, 8), draw.size(1024, 40)
    width = draw.size(128, 16)
    keys = [draw.normal(2, heads // groups, length, width) for _ in range(2)]
    return [draw.normal(2, heads, new or length, width), *keys]


def _masked(draw: Draw) -> list[Tensor]:
    """Return the same with a mask [batch, 1, length, length]: causal, padded on the left."""
    query, key, value = _attended(draw, groups=4)
    length = query.shape[-2]
    places = torch.arange(length)
    begins = torch.tensor([0, length // 3])[:, None, None, None]
    seen = (places <= places[:, None]) & (places >= begins)
    return [query, key, value, seen | torch.eye(length, dtype=torch.bool)]


def attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None) -> Tensor:
    """Attend to what is `seen`; without that, to what is not later than the query."""
    groups = query.shape[1] // key.shape[1]
    key, value = (one.repeat_interleave(groups, 1) for one in (key, value))
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if seen is None:
        asked, length = scores.shape[-2:]
        seen = torch.ones(asked, length, dtype=torch.bool).tril(length - asked)
    found: Tensor = scores.masked_fill(~seen.to(scores.device), float("-inf")).softmax(-1) @ value
    return found


def _sdpa(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    seen: Tensor | None = None,
    *,
    causal: bool,
    grouped: bool,
) -> Tensor:
    return nn.scaled_dot_product_attention(
        query, key, value, seen, is_causal=causal, enable_gqa=grouped
    )


# --- experts ------------------------------------------------------------------------------------


def _by_expert(draw: Draw) -> list[Tensor]:
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


def _torch_grouped(tokens: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    return nn.grouped_mm(tokens, weights, offs=ends)


def _batches(draw: Draw) -> list[Tensor]:
    tokens, width = draw.size(512, 24), draw.size(1024, 32)
    return [draw.normal(4, tokens, width), draw.normal(4, width, 2 * width)]


def batched(tokens: Tensor, weights: Tensor) -> Tensor:
    """Multiply [experts, tokens, width] by [experts, width, width of the result]."""
    return torch.stack([one @ weight for one, weight in zip(tokens, weights, strict=True)])


# --- the loss and the optimizer -----------------------------------------------------------------


def _scored(draw: Draw) -> list[Tensor]:
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


def _torch_cross_entropy(scores: Tensor, labels: Tensor) -> Tensor:
    return nn.cross_entropy(scores, labels, ignore_index=IGNORE, reduction="sum")


def _trained(draw: Draw) -> list[Tensor]:
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


def _torch_adamw(weights: Tensor, slopes: Tensor, *, way: Mapping[str, bool]) -> Tensor:
    """Do the same on several tensors at once."""
    sizes = [1, len(weights) // 3, len(weights) - 1 - len(weights) // 3]
    parts = [torch.nn.Parameter(part.clone()) for part in torch.split(weights, sizes)]
    for part, slope in zip(parts, torch.split(slopes, sizes), strict=True):
        part.grad = slope.clone()
    optimizer = torch.optim.AdamW(parts, lr=RATE, betas=BETAS, eps=TINY, weight_decay=DECAY, **way)
    for _ in range(STEPS):
        optimizer.step()
    return torch.cat([part.detach() for part in parts])


# --- a maker's own ------------------------------------------------------------------------------


def _npu(name: str) -> Any:  # noqa: ANN401 - an operator of torch_npu
    return getattr(sys.modules["torch_npu"], name)


def _npu_rms_norm(rows: Tensor, weight: Tensor) -> Tensor:
    found: Tensor = _npu("npu_rms_norm")(rows, weight, epsilon=EPSILON)[0]
    return found


def _npu_rotary(given: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    found: Tensor = _npu("npu_rotary_mul")(given, cosines, sines)
    return found


def _npu_swiglu(both: Tensor) -> Tensor:
    found: Tensor = _npu("npu_swiglu")(both, dim=-1)
    return found


def _npu_attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    scale = query.shape[-1] ** -0.5
    hidden: dict[str, Any] = {"atten_mask": ~seen, "scale": scale, "input_layout": "BNSD"}
    found: Tensor = _npu("npu_fusion_attention")(query, key, value, query.shape[1], **hidden)[0]
    return found


# --- the table ----------------------------------------------------------------------------------

_SINGLE = (torch.float32,)
_ATTENDS = partial(Fused, learnt=3, composite=attention, roundings=8.0, products=True)
_NPU = partial(Fused, package="torch_npu")

TABLE: tuple[Fused, ...] = (
    Fused(
        name="rms_norm",
        given=_rows,
        learnt=2,
        operator=_torch_rms_norm,
        composite=rms_norm,
        covers=("aten::_fused_rms_norm",),
    ),
    Fused(
        name="layer_norm",
        given=_layer_norm_rows,
        learnt=3,
        operator=_torch_layer_norm,
        composite=layer_norm,
    ),
    Fused(name="swiglu", given=_gated, learnt=1, operator=_torch_swiglu, composite=swiglu),
    Fused(name="rotary", given=_rotated, learnt=1, operator=_torch_rotary, composite=rotary),
    Fused(
        name="complex rotary", given=_rotated, learnt=1, operator=_complex_rotary, composite=rotary
    ),
    _ATTENDS(
        name="causal attention",
        given=_attended,
        operator=partial(_sdpa, causal=True, grouped=False),
    ),
    _ATTENDS(
        name="grouped-query attention",
        given=partial(_attended, groups=4),
        operator=partial(_sdpa, causal=True, grouped=True),
    ),
    _ATTENDS(
        name="masked attention",
        given=_masked,
        operator=partial(_sdpa, causal=False, grouped=True),
    ),
    _ATTENDS(
        name="attention of a new token",
        given=partial(_attended, groups=4, new=1),
        operator=partial(_sdpa, causal=False, grouped=True),
        learnt=0,
        roles=(SERVE,),
    ),
    Fused(
        name="grouped products",
        given=_by_expert,
        learnt=2,
        operator=_torch_grouped,
        composite=grouped,
        products=True,
        covers=("aten::_grouped_mm",),
    ),
    Fused(
        name="batched products",
        given=_batches,
        learnt=2,
        operator=torch.bmm,
        composite=batched,
        products=True,
    ),
    Fused(
        name="cross entropy",
        given=_scored,
        learnt=1,
        operator=_torch_cross_entropy,
        composite=cross_entropy,
        dtypes=_SINGLE,
        roles=(TRAIN,),
    ),
    *(
        Fused(
            name=f"{way} AdamW",
            given=_trained,
            learnt=0,
            operator=partial(_torch_adamw, way={way: True}),
            composite=adamw,
            dtypes=_SINGLE,
            roles=(TRAIN,),
        )
        for way in ("fused", "foreach")
    ),
    _NPU(
        name="npu_rms_norm",
        given=_rows,
        learnt=2,
        operator=_npu_rms_norm,
        composite=rms_norm,
        covers=("npu::npu_rms_norm",),
    ),
    _NPU(
        name="npu_rotary_mul",
        given=_rotated,
        learnt=1,
        operator=_npu_rotary,
        composite=rotary,
        covers=("npu::npu_rotary_mul",),
    ),
    _NPU(
        name="npu_swiglu",
        given=_gated,
        learnt=1,
        operator=_npu_swiglu,
        composite=swiglu,
        covers=("npu::npu_swiglu",),
    ),
    _ATTENDS(
        name="npu_fusion_attention",
        given=_masked,
        operator=_npu_attention,
        package="torch_npu",
    ),
)
