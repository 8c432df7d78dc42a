"""The norms of the blocks of weights: what a wrong scale or exponent changes, in any model.

In a large model one wrong scale among thousands may leave the answers as they are. The norm of its
block, though, doubles, while rounding to any format leaves norms all but as they were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 128  # rows and columns: what block formats scale together
_NOTHING = 1e-12  # a norm that stands for zero

Norms = dict[str, Tensor]


@torch.no_grad()
def norms(model: Any) -> Norms:  # noqa: ANN401 - a transformers model
    """Return the norms of the blocks of each parameter, as float32 on the host."""
    module: nn.Module = model
    return {name: _of(weight) for name, weight in module.named_parameters()}


def furthest(trained: Mapping[str, Tensor], served: Mapping[str, Tensor]) -> tuple[float, str]:
    """Return the largest relative change of a norm, and the name of its tensor."""
    return max(_changes(trained, served), default=(0.0, ""))


def _changes(
    trained: Mapping[str, Tensor], served: Mapping[str, Tensor]
) -> Iterator[tuple[float, str]]:
    for name in sorted(trained.keys() | served.keys()):
        one, other = trained.get(name), served.get(name)
        yield (math.inf if one is None or other is None else _change(one, other)), name


def _change(one: Tensor, other: Tensor) -> float:
    if one.shape != other.shape or not other.isfinite().all():
        return math.inf
    return float(((other - one).abs() / one.clamp(min=_NOTHING)).max())


def _of(weight: Tensor) -> Tensor:
    matrix = weight.detach().to("cpu", torch.float32)
    matrix = matrix.reshape(-1, matrix.shape[-1]) if matrix.ndim > 1 else matrix.reshape(1, -1)
    rows, columns = matrix.shape
    padded = functional.pad(matrix, (0, -columns % SIZE, 0, -rows % SIZE))
    blocks = padded.reshape(padded.shape[0] // SIZE, SIZE, padded.shape[1] // SIZE, SIZE)
    found: Tensor = torch.linalg.vector_norm(blocks, dim=(1, 3))
    return found
