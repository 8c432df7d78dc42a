"""The number types whose products a pool relies on, and how torch multiplies each.

A maker's engine may bring products of its own for a format; what torch can't multiply here nobody
has tested, and a pool that serves in it is qualified with that limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import ScalingType, SwizzleType, scaled_mm

from jobs.qualification.bench import BOTH, FAILED, LIMITED, SERVE, SKIPPED

Product: TypeAlias = Callable[[Tensor, Tensor], Tensor]

_GROUP = 32  # numbers that share a scale in MXFP8
_WIDEST_CODE = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class NumberType:
    """A number type, and how torch multiplies it.

    Attributes:
        name: As torch names it; as the format is named where torch has no type for it.
        dtype: Its type.
        product: Multiplies [rows, inner] by [inner, columns] of it, the latter laid out by
            columns where it is a code; `None` where torch has no such numbers.
        roles: The roles that rely on it.
        lacking: What it means that it can't be multiplied: a status.
        result: The type of the result.
        largest: The largest whole number that is drawn; with `None` results of 16 bits are exact.
    """

    name: str
    dtype: torch.dtype
    product: Product | None
    roles: tuple[str, ...] = (SERVE,)
    lacking: str = LIMITED
    result: torch.dtype = torch.bfloat16
    largest: int | None = None

    @property
    def code(self) -> bool:
        """Whether its numbers are codes, of 8 bits, with scales beside them."""
        return self.dtype.itemsize == 1


def number_types_of(formats: Sequence[str]) -> Iterator[NumberType]:
    """Yield the kinds that a pool relies on, of these formats of weights; float16 is a guest."""
    yield _whole("float32", largest=8)
    yield _whole("float16", lacking=SKIPPED)
    yield _whole("bfloat16", lacking=FAILED if "bf16" in formats else SKIPPED)
    asked = (_CODES[form] for form in formats if form in _CODES)
    yield from {kind.name: kind for kind in asked}.values()


def _whole(name: str, *, lacking: str = FAILED, largest: int | None = None) -> NumberType:
    dtype: torch.dtype = getattr(torch, name)
    return NumberType(
        name=name,
        dtype=dtype,
        product=torch.matmul,
        roles=BOTH,
        lacking=lacking,
        result=dtype,
        largest=largest,
    )


def _by_tensor(lhs: Tensor, rhs: Tensor) -> Tensor:
    """Multiply codes; a host that plays a chip does so in float32, which is exact."""
    if lhs.device.type == "cpu":  # some take a minute for it, some lack a format, as they come
        return (lhs.float() @ rhs.float()).bfloat16()
    return scaled_product(lhs, rhs)


def scaled_product(lhs: Tensor, rhs: Tensor) -> Tensor:
    """Multiply codes whose scales, one a tensor, are powers of two that cancel."""
    double, half = (torch.full((), value, device=lhs.device) for value in (2.0, 0.5))
    product: Tensor = torch._scaled_mm(  # noqa: SLF001 - the public one has no kernel on most devices
        lhs, rhs, scale_a=double, scale_b=half, out_dtype=torch.bfloat16
    )
    return product


def _by_group(lhs: Tensor, rhs: Tensor) -> Tensor:
    """Multiply codes with a scale of 8 bits for each 32 of them; all scales are alike."""
    scales = [
        torch.full((width * inner // _GROUP,), value, device=lhs.device)
        .to(torch.float8_e8m0fnu)
        .reshape(width, -1)
        for width, inner, value in (
            (lhs.shape[0], lhs.shape[1], 2.0),
            (rhs.shape[1], rhs.shape[0], 0.5),
        )
    ]
    groups, layout = ScalingType.BlockWise1x32, SwizzleType.SWIZZLE_32_4_4
    product: Tensor = scaled_mm(
        *(lhs, rhs, scales[0], groups, scales[1], groups, layout, layout),
        output_dtype=torch.bfloat16,
    )
    return product


def _of_fp8(name: str) -> NumberType:
    return NumberType(name=name, dtype=getattr(torch, name), product=_by_tensor)


_INT8 = NumberType(
    name="int8",
    dtype=torch.int8,
    product=torch._int_mm,  # noqa: SLF001 - torch has no public name for it
    result=torch.int32,
    largest=_WIDEST_CODE,
)
_E4M3 = _of_fp8("float8_e4m3fn")
_CODES: Mapping[str, NumberType] = MappingProxyType(
    {
        "int8": _INT8,
        "fp8": _E4M3,
        "fp8_ue8m0": _E4M3,
        "fp8_fnuz": _of_fp8("float8_e4m3fnuz"),
        "mxfp8": NumberType(name="mxfp8", dtype=torch.float8_e4m3fn, product=_by_group),
        "hif8": NumberType(name="hif8", dtype=torch.uint8, product=None),
    }
)
