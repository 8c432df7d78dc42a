"""What a format of weights is: the type of its codes and scales, and which weights share a scale.

A weight is its code times its scale. All formats but `fp32` and `bf16` are schemes of that kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

PLAIN: Mapping[str, torch.dtype] = MappingProxyType(
    {"bf16": torch.bfloat16, "fp32": torch.float32}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """A format with scales.

    Attributes:
        form: Its name.
        codes: torch type of the codes.
        scales: torch type in which scales are stored; `uint8` holds E8M0: byte b is 2^(b - 127).
        suffix: What the name of a scale has after the name of its weight.
        block: Rows and columns that share a scale, 0 for all; those at the edges may be smaller.
        powers: Whether every scale is a power of two.
        together: Rows that are quantised together.
        offset: What the name of an offset has after that of its weight, where readers want one;
            it is zero, of the type and shape of the scale.
    """

    form: str
    codes: torch.dtype
    scales: torch.dtype
    suffix: str
    block: tuple[int, int]
    powers: bool = False
    together: int = 1
    offset: str = ""

    def grid(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Return the rows and columns of the scales of a weight of this shape."""
        rows, columns = (
            -(-size // (block or max(size, 1)))
            for size, block in zip(shape, self.block, strict=True)
        )
        return rows, columns

    def makes(self, other: Scheme) -> bool:
        """Return whether codes and scales of this scheme are some of another, as they are."""
        return (self.codes, self.block) == (other.codes, other.block) and (
            self.powers or not other.powers
        )

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return whether readers take a weight of this shape: those of groups want whole ones."""
        rows, columns = self.block
        return rows != 1 or not columns or shape[1] % columns == 0


# The largest code of a format; scales map the largest weight of a block on it.
LARGEST: Mapping[torch.dtype, float] = MappingProxyType(
    {torch.float8_e4m3fn: 448.0, torch.int8: 127.0}
)

_FP8 = Scheme(
    form="fp8",
    codes=torch.float8_e4m3fn,
    scales=torch.float32,
    suffix="_scale_inv",
    block=(128, 128),
    together=128,
)
_UE8M0 = replace(_FP8, form="fp8_ue8m0", powers=True)
_MXFP8 = replace(
    _UE8M0, form="mxfp8", scales=torch.uint8, suffix="_scale", block=(1, 32), together=1
)
_INT8 = Scheme(form="int8", codes=torch.int8, scales=torch.float32, suffix="_scale", block=(1, 0))
SCHEMES: Mapping[str, Scheme] = MappingProxyType(
    {scheme.form: scheme for scheme in (_FP8, _UE8M0, _MXFP8, _INT8)}
)

FORMATS = (*PLAIN, *SCHEMES)

# Who reads a folder, where readers differ: what vLLM and transformers read is the rule.
DIALECTS = ("vllm", "sglang", "ascend-modelslim")
SGLANG, MODELSLIM = DIALECTS[1:]
_DIFFERENT: Mapping[tuple[str, str], Scheme] = MappingProxyType(
    {
        ("mxfp8", SGLANG): replace(_MXFP8, suffix="_scale_inv"),
        ("int8", MODELSLIM): replace(_INT8, offset="_offset"),
    }
)


def scheme_for(form: str, dialect: str = DIALECTS[0]) -> Scheme | None:
    """Return the scheme of a format as the readers of a dialect want it; `None` of a plain one.

    Raises:
        ValueError: There is no such format or dialect, or the readers of the one don't know the
            other.
    """
    if form not in FORMATS:
        raise ValueError(f"format={form!r} is none of {', '.join(FORMATS)}")
    if dialect not in DIALECTS:
        raise ValueError(f"dialect={dialect!r} is none of {', '.join(DIALECTS)}")
    if dialect == MODELSLIM and form.startswith("fp8"):
        raise ValueError(
            f"format={form!r} is none that the readers of dialect={dialect!r} know; "
            f"export the model in bf16, int8 or mxfp8"
        )
    return _DIFFERENT.get((form, dialect), SCHEMES.get(form))
