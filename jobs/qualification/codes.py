"""Products of quantised weights: codes of eight bits, as formats that a chip can serve store them.

torch's own products are asked. A maker's engine may bring others, so one that is missing is
told and is no flaw; one that is wrong is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from jobs.qualification.bench import FAILED, SERVE, SKIPPED, Bench, one_line
from jobs.qualification.coverage import missing
from jobs.qualification.products import error_of, note_of

_ROWS = 64  # of the reference
_INT8, _FP8, _FNUZ = "int8", "float8_e4m3fn", "float8_e4m3fnuz"
# Whole numbers are summed exactly; the result of the others is rounded to bfloat16.
_TOLERANCES: Mapping[str, float] = MappingProxyType({_INT8: 0.0, _FP8: 1e-2, _FNUZ: 1e-2})
# The codes of a format; torch has none for hif8.
_CODES: Mapping[str, str] = MappingProxyType(
    {"int8": _INT8, "fp8": _FP8, "fp8_ue8m0": _FP8, "mxfp8": _FP8, "fp8_fnuz": _FNUZ}
)
_ROLES = (SERVE,)

Product: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def check_codes(bench: Bench, device: torch.device, formats: Sequence[str]) -> None:
    """Look whether products of the codes of `formats` are right."""
    wanted = {_CODES[form] for form in formats if form in _CODES}
    for name in sorted(wanted):
        check_product(bench, device, name, _PRODUCTS[name])


def check_product(bench: Bench, device: torch.device, name: str, product: Product) -> None:
    """Look whether `product` of two matrices of codes of type `name` is right."""
    subject, tolerance = f"{name} {device}", _TOLERANCES[name]
    left, right = _codes(name, 4096 if bench.real else 192)
    try:
        found = product(left.to(device), right.to(device)).cpu()
    except (RuntimeError, ValueError) as error:
        verb = "has no" if missing(error) else "refuses"
        note = f"torch {verb} such product here: {one_line(error)}"
        bench.say("products", subject, SKIPPED, note=note, roles=_ROLES)
        return
    worst = error_of(found[:_ROWS], left[:_ROWS].double() @ right.double())
    status = "passed" if worst <= tolerance else FAILED
    note = note_of(worst, tolerance)
    bench.say("products", subject, status, figure=worst, note=note, roles=_ROLES)


def _codes(name: str, size: int) -> tuple[Tensor, Tensor]:
    """Return two matrices of codes, the right one laid out by columns, as kernels want it."""
    generator = torch.Generator().manual_seed(1)
    if name == _INT8:
        both = torch.randint(-127, 128, (2, size, size), generator=generator).to(torch.int8)
    else:
        both = torch.randn(2, size, size, generator=generator).to(getattr(torch, name))
    return both[0], both[1].t()


def _whole(left: Tensor, right: Tensor) -> Tensor:
    return torch._int_mm(left, right)  # noqa: SLF001 - torch has no public name for it


def _scaled(left: Tensor, right: Tensor) -> Tensor:
    one = torch.ones((), device=left.device)
    found: Tensor = torch._scaled_mm(  # noqa: SLF001 - the public one has no kernel on most devices
        left, right, scale_a=one, scale_b=one, out_dtype=torch.bfloat16
    )
    return found


_PRODUCTS: Mapping[str, Product] = MappingProxyType({_INT8: _whole, _FP8: _scaled, _FNUZ: _scaled})
