"""Arithmetic as accelerators may have it, done by the host: how far from exact is still sound.

TF32 multiplies float32 by their first 10 bits behind the point, which makers have as a default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm"})
_LOST = 13  # of 23 bits


@contextmanager
def tf32() -> Iterator[None]:
    """Have products of float32 take TF32; attention is made out of products."""
    mode: Any = _Rounded
    with sdpa_kernel(SDPBackend.MATH), mode():
        yield


def rounded(values: Tensor) -> Tensor:
    """Return float32 values rounded to TF32, to the nearest, ties to even."""
    bits = values.contiguous().view(torch.int32)
    half = (1 << (_LOST - 1)) - 1 + ((bits >> _LOST) & 1)
    return ((bits + half) & -(1 << _LOST)).view(torch.float32)


class _Rounded(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Rounds what products are given."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator of torch
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever operators give
        """Do an operator."""
        if func._schema.name.rpartition("::")[2] in _PRODUCTS:  # noqa: SLF001 - no public name for it
            args = [_operand(value) for value in args]
        return func(*args, **(kwargs or {}))


def _operand(value: Any) -> Any:  # noqa: ANN401 - whatever operators take
    single = isinstance(value, Tensor) and value.dtype is torch.float32
    return rounded(value) if single else value
