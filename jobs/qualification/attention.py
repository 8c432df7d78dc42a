"""Whether the kernels of attention compute attention, forward and backward, at real widths.

The host has none of them, so that the operators one by one are not compared. Here each is compared
with what attention is made of: products and a softmax, in float32 on the same device. The noise is
that of the same composite in the number type of the kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from jobs.qualification.absolute_error import absolute_error, magnitude
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench, one_line
from jobs.qualification.coverage import missing

Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

_FACTOR, _LEAST = 4.0, 1e-3
_TINY = 1e-12  # what errors are measured by where all is zero
# Those that torch lets choose from, on these devices; a maker's is what it takes by itself.
_KERNELS = ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION")
_CHOSEN_ON = ("cuda", "cpu")
_NONE = ("No available kernel", "No viable backend")
_DEFAULT = "default"
# What follows where there is no such kernel: one that is asked for by name is never taken then.
_LACKING = (
    (SKIPPED, "torch has no such kernel here"),
    (LIMITED, "torch has no attention here, so nobody has tested it"),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """Of queries, keys and values: [batch, heads, length, width]."""

    batch: int
    heads: int
    length: int
    width: int


_REAL = (Shape(2, 16, 2048, 128), Shape(1, 8, 4096, 64))
_OF_HOST = (Shape(1, 2, 48, 16),)


def check_attention(bench: Bench, device: torch.device, formats: Sequence[str]) -> None:
    """Compare each kernel that there is, in the number types that the pool relies on."""
    dtypes = [torch.bfloat16] if "bf16" in formats else []
    for dtype in (*dtypes, torch.float32):
        for shape in _REAL if bench.real else _OF_HOST:
            _check(bench, device, shape, dtype)


def composite(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend [batch, heads, length, width] causally, by products and a softmax."""
    length, width = query.shape[-2:]
    scores = query @ key.transpose(-1, -2) * width**-0.5
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    output: Tensor = scores.masked_fill(later, float("-inf")).softmax(-1) @ value
    return output


def _check(bench: Bench, device: torch.device, shape: Shape, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(bench.ctx.seed)
    size = (4, shape.batch, shape.heads, shape.length, shape.width)
    inputs = torch.randn(size, generator=generator).to(dtype)
    expected = _passes(composite, inputs.float(), device)
    noise = _apart(_passes(composite, inputs, device), expected)
    allowed = max(_FACTOR * noise, _LEAST) if math.isfinite(noise) else _LEAST
    for name, where in _kernels(device):
        subject = f"{name} {str(dtype).removeprefix('torch.')} {shape.width} wide {device}"
        try:
            with where:
                actual = _passes(
                    partial(scaled_dot_product_attention, is_causal=True), inputs, device
                )
        except RuntimeError as error:
            if not missing(error) and not any(words in str(error) for words in _NONE):
                bench.say("attention", subject, FAILED, note=f"raises: {one_line(error)}")
                continue
            status, note = _LACKING[name == _DEFAULT]
            bench.say("attention", subject, status, note=note)
            continue
        far = _apart(actual, expected)
        note = f"differs from a composite by {far:.1e} of the largest, {allowed:.0e} is allowed"
        status = PASSED if far <= allowed else FAILED
        bench.say("attention", subject, status, figure=far, note=note)


def _kernels(device: torch.device) -> list[tuple[str, AbstractContextManager[Any]]]:
    names = _KERNELS if device.type in _CHOSEN_ON else ()
    named = [(name, getattr(SDPBackend, name, None)) for name in names]
    kernels = [
        (name.lower(), sdpa_kernel(backend)) for name, backend in named if backend is not None
    ]
    return [(_DEFAULT, nullcontext()), *kernels]


def _passes(attend: Attend, inputs: Tensor, device: torch.device) -> list[Tensor]:
    """Return the result and the gradients of queries, keys and values, float32.

    `inputs` has those three, and the gradient of the result.
    """
    query, key, value = (part.to(device).requires_grad_() for part in inputs[:3])
    out = attend(query, key, value)
    out.backward(inputs[3].to(device))  # type: ignore[no-untyped-call] # torch leaves it untyped
    grads = [part.grad for part in (query, key, value)]
    return [part.detach().float() for part in (out, *grads) if part is not None]


def _apart(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference, as a share of the largest value of its tensor."""
    errors = [
        float(
            absolute_error(result, reference).max() / magnitude(reference).max().clamp(min=_TINY)
        )
        for result, reference in zip(actual, expected, strict=True)
    ]
    return max(errors)
