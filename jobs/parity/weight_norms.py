"""The norms of blocks and rows of weights: what a wrong scale or exponent changes, in any model.

In a large model one wrong scale among thousands may leave the answers as they are. The norm of its
block or row, though, doubles, while rounding to any format leaves norms all but as they were. Rows
show what blocks don't: a scale of one channel, a matrix that is transposed or in another order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 128  # rows and columns: what block formats scale together
ROWS = ":rows"  # of a weight's name: the norms of its rows, not of its blocks
_NOTHING = 1e-12  # a norm that stands for zero
_SMALL = 0.01  # of the largest: smaller ones are measured by this, for they may round to nothing

Norms = dict[str, Tensor]


@torch.no_grad()
def norms(model: Any) -> Norms:  # noqa: ANN401 - a transformers model
    """Return the norms of the blocks and of the rows of each parameter, as float32 on the host.

    By its name those of the blocks (rows, columns), by its name and `ROWS` those of the rows
    (strips, 1), which a vector has not: as many rows together as have 128 weights, for rounding
    moves the norms of fewer too far.
    """
    module: nn.Module = model
    by_name: Norms = {}
    for name, weight in module.named_parameters():
        matrix = _matrix(weight)
        by_name[name] = _blocks(matrix)
        if len(matrix) > 1:
            by_name[name + ROWS] = _strips(matrix)
    return by_name


def furthest(
    trained: Mapping[str, Tensor], served: Mapping[str, Tensor], of: Collection[str] | None = None
) -> tuple[float, str]:
    """Return the largest relative change of a norm, and the name of its tensor.

    `of` names the weights that are looked at; by default all.
    """
    changes = _changes(trained, served)
    asked = (change for change in changes if of is None or change[1].removesuffix(ROWS) in of)
    return max(asked, default=(0.0, ""))


def _changes(
    trained: Mapping[str, Tensor], served: Mapping[str, Tensor]
) -> Iterator[tuple[float, str]]:
    for name in sorted(trained.keys() | served.keys()):
        before, after = trained.get(name), served.get(name)
        yield (math.inf if before is None or after is None else _change(before, after)), name


def _change(trained: Tensor, served: Tensor) -> float:
    if trained.shape != served.shape or not served.isfinite().all():
        return math.inf
    least = max(float(trained.max()) * _SMALL, _NOTHING)
    return float(((served - trained).abs() / trained.clamp(min=least)).max())


def _matrix(weight: Tensor) -> Tensor:
    matrix = weight.detach().to("cpu", torch.float32)
    return matrix.reshape(-1, matrix.shape[-1]) if matrix.ndim > 1 else matrix.reshape(1, -1)


def _strips(matrix: Tensor) -> Tensor:
    """Return the norms of strips of whole rows (strips, 1)."""
    together = -(-SIZE // matrix.shape[1])
    squares = functional.pad(matrix.square().sum(1), (0, -len(matrix) % together))
    return squares.reshape(-1, together).sum(1, keepdim=True).sqrt()


def _blocks(matrix: Tensor) -> Tensor:
    rows, columns = matrix.shape
    padded = functional.pad(matrix, (0, -columns % SIZE, 0, -rows % SIZE))
    blocks = padded.reshape(padded.shape[0] // SIZE, SIZE, padded.shape[1] // SIZE, SIZE)
    block_norms: Tensor = torch.linalg.vector_norm(blocks, dim=(1, 3))
    return block_norms
