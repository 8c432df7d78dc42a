"""Operators that do several things at once, against what they are made of, in float64 on the host.

What training and serving use of torch, and what a maker's own package adds (`torch_npu`): one
table. A kernel may round as often as its row says, by the format of its results; sums of products
in float32 may be made of TF32. Each row of a result is measured by itself, so that small ones
count; gradients, which cancel out here and there, by the largest of them all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from jobs.qualification.absolute_error import absolute_error, magnitude
from jobs.qualification.bench import FAILED, LIMITED, PASSED, SKIPPED, Bench, one_line
from jobs.qualification.composites import Draw
from jobs.qualification.coverage import missing
from jobs.qualification.fused_table import Function, Fused, table_of

CHECK = "fused"
_LEAST_SCALE = 2.0**-8  # of the largest value: what is smaller than that is measured by that


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


def _check(
    bench: Bench, fused: Fused, dtype: torch.dtype, devices: Sequence[torch.device]
) -> None:
    generator = torch.Generator().manual_seed(bench.ctx.seed)
    args = fused.inputs(Draw(generator, bench.real))
    args = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in args]
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in args]
    expected = passes(fused.composite, exact, fused.learnt)
    for device in devices:
        subject = f"{fused.name} {str(dtype).removeprefix('torch.')} {device}"
        status, far, note = _compared(
            fused, dtype, [tensor.to(device) for tensor in args], expected
        )
        if status == LIMITED and not bench.real:
            status = SKIPPED
        bench.say(CHECK, subject, status, figure=far, note=note, roles=fused.roles)


def _compared(
    fused: Fused, dtype: torch.dtype, args: Sequence[Tensor], expected: Sequence[Tensor]
) -> tuple[str, float | None, str]:
    """Return a status, how far the operator is off, and what there is to know."""
    try:
        actual = passes(fused.operator, args, fused.learnt)
    except RuntimeError as error:
        lacks = missing(error)
        said = "can't be tried here, so nobody has tested it" if lacks else "raises"
        return LIMITED if lacks else FAILED, None, f"{said}: {one_line(error)}"
    far, allowed = apart(actual, expected), fused.allowed(dtype)
    note = f"differs from a composite by {far:.1e} of the largest, {allowed:.0e} is allowed"
    return PASSED if far <= allowed else FAILED, far, note


def passes(function: Function, args: Sequence[Tensor], learnt: int) -> list[Tensor]:
    """Return the result and the gradients of the first `learnt` arguments, float64 on the host.

    The gradient of the result is a fixed one.
    """
    inputs = [tensor.requires_grad_(place < learnt) for place, tensor in enumerate(_copies(args))]
    with torch.set_grad_enabled(learnt > 0):
        out = function(*inputs)
    grads: Sequence[Tensor] = ()
    if learnt:
        generator = torch.Generator().manual_seed(out.numel())
        slope = torch.randn(out.shape, generator=generator).bfloat16().to(out)
        grads = torch.autograd.grad(out, inputs[:learnt], slope)
    return [tensor.detach().cpu().double() for tensor in (out, *grads)]


def _copies(args: Sequence[Tensor]) -> Iterator[Tensor]:
    return (tensor.detach().clone() for tensor in args)


def apart(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Return the largest difference, as a share of the largest value of its row.

    The first is a result, the others are gradients: these have no rows.
    """
    pairs = enumerate(zip(actual, expected, strict=True))
    errors = [_apart(result, reference, by_row=place == 0) for place, (result, reference) in pairs]
    return max(errors)


def _apart(actual: Tensor, expected: Tensor, *, by_row: bool) -> float:
    if actual.shape != expected.shape:
        return float("inf")
    width = expected.shape[-1] if by_row and expected.dim() else expected.numel()
    rows, reference = actual.reshape(-1, width), expected.reshape(-1, width)
    largest = magnitude(reference).amax(-1)
    scale = largest.clamp(min=float(largest.max()) * _LEAST_SCALE or 1.0)
    return float((absolute_error(rows, reference).amax(-1) / scale).max())
