"""Which operators do several things at once: those of torch, and those of makers' packages."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

from jobs.qualification import composites
from jobs.qualification.bench import BOTH, SERVE, TRAIN
from jobs.qualification.composites import Draw

Function: TypeAlias = Callable[..., Tensor]
Inputs: TypeAlias = Callable[[Draw], list[Tensor]]

_TF32 = 2.0**-10


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """An operator.

    Attributes:
        name: What it is called.
        inputs: Draws its arguments, float32 or whole numbers.
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
    inputs: Inputs
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


def table_of(kind: str) -> Iterator[Fused]:
    """Yield the operators that a device of this type has: torch's, and those of its package."""
    for fused in TABLE:
        module = sys.modules.get(fused.package)
        if not fused.package or (fused.package == f"torch_{kind}" and hasattr(module, fused.name)):
            yield fused


def covered(name: str, kind: str) -> bool:
    """Whether the table has what torch's dispatcher calls `name` on a device of this type."""
    return any(name.startswith(prefix) for fused in table_of(kind) for prefix in fused.covers)


_SINGLE = (torch.float32,)
_ATTENDS = partial(Fused, learnt=3, composite=composites.attention, roundings=8.0, products=True)
_NPU = partial(Fused, package="torch_npu")

TABLE: tuple[Fused, ...] = (
    Fused(
        name="rms_norm",
        inputs=composites.some_rows,
        learnt=2,
        operator=composites.torch_rms_norm,
        composite=composites.rms_norm,
        covers=("aten::_fused_rms_norm",),
    ),
    Fused(
        name="layer_norm",
        inputs=composites.rows_with_bias,
        learnt=3,
        operator=composites.torch_layer_norm,
        composite=composites.layer_norm,
        roundings=12,  # some sum the gradients of weights over rows in the format of the rows
    ),
    Fused(
        name="swiglu",
        inputs=composites.gated,
        learnt=1,
        operator=composites.torch_swiglu,
        composite=composites.swiglu,
    ),
    Fused(
        name="rotary",
        inputs=composites.with_angles,
        learnt=1,
        operator=composites.torch_rotary,
        composite=composites.rotary,
    ),
    Fused(
        name="complex rotary",
        inputs=composites.with_angles,
        learnt=1,
        operator=composites.complex_rotary,
        composite=composites.rotary,
    ),
    _ATTENDS(
        name="causal attention",
        inputs=composites.attended,
        operator=partial(composites.sdpa, causal=True, grouped=False),
    ),
    _ATTENDS(
        name="grouped-query attention",
        inputs=partial(composites.attended, groups=4),
        operator=partial(composites.sdpa, causal=True, grouped=True),
    ),
    _ATTENDS(
        name="masked attention",
        inputs=composites.masked,
        operator=partial(composites.sdpa, causal=False, grouped=True),
    ),
    _ATTENDS(
        name="attention of a new token",
        inputs=partial(composites.attended, groups=4, new=1),
        operator=partial(composites.sdpa, causal=False, grouped=True),
        learnt=0,
        roles=(SERVE,),
    ),
    Fused(
        name="grouped products",
        inputs=composites.by_expert,
        learnt=2,
        operator=composites.torch_grouped,
        composite=composites.grouped,
        products=True,
        covers=("aten::_grouped_mm",),
    ),
    Fused(
        name="batched products",
        inputs=composites.batches,
        learnt=2,
        operator=torch.bmm,
        composite=composites.batched,
        products=True,
    ),
    Fused(
        name="cross entropy",
        inputs=composites.scored,
        learnt=1,
        operator=composites.torch_cross_entropy,
        composite=composites.cross_entropy,
        dtypes=_SINGLE,
        roles=(TRAIN,),
    ),
    *(
        Fused(
            name=f"{implementation} AdamW",
            inputs=composites.trained,
            learnt=0,
            operator=partial(composites.torch_adamw, flags={implementation: True}),
            composite=composites.adamw,
            dtypes=_SINGLE,
            roles=(TRAIN,),
        )
        for implementation in ("fused", "foreach")
    ),
    _NPU(
        name="npu_rms_norm",
        inputs=composites.some_rows,
        learnt=2,
        operator=composites.npu_rms_norm,
        composite=composites.rms_norm,
        covers=("npu::npu_rms_norm",),
    ),
    _NPU(
        name="npu_rotary_mul",
        inputs=composites.with_angles,
        learnt=1,
        operator=composites.npu_rotary,
        composite=composites.rotary,
        covers=("npu::npu_rotary_mul",),
    ),
    _NPU(
        name="npu_swiglu",
        inputs=composites.gated,
        learnt=1,
        operator=composites.npu_swiglu,
        composite=composites.swiglu,
        covers=("npu::npu_swiglu",),
    ),
    _ATTENDS(
        name="npu_fusion_attention",
        inputs=composites.masked,
        operator=composites.npu_attention,
        package="torch_npu",
    ),
)
