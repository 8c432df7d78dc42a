"""What is kept of weights: norms of blocks and rows, and sums of rows and columns.

In a large model one wrong scale among thousands may leave the answers as they are. The norm of its
block or row, though, doubles, while rounding to any format leaves norms all but as they were. Rows
show what blocks don't: a scale of one channel, a matrix that is transposed or in another order.
A scale of 32 weights of a row is seen where the row is short: however its weights are distributed,
rounding moves the sum of their squares by no more than a share of the root of the sum of their
fourth powers, and 32 that are halved or doubled move it by more.

What keeps each norm, as a row of another sign or two columns that are exchanged, moves the sums of
a row's or a column's weights, each weight with a sign drawn at random, once and for all. Whatever
the weights are, rounding moves a sum by a normal variable as wide as the norm of its errors. Of
`SUMS` such sums the root of the mean square is beyond 3.7 times that width once in 10^10 rows.

A scale of 32 weights is seen however long the row: of each 32 the largest is kept, as the nearest
quarter of an octave in a byte. Rounding to 4 bits moves that by one quarter at most.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

SIZE = 128  # rows and columns: what block formats scale together
SUMS = 4  # of a row or column, each with signs of its own
# Of a weight's name: the norms of its rows, not of its blocks; the sums of rows and of columns
# over the norm of a usual one; a vector's own values.
ROWS, ROW_SUMS, COLUMN_SUMS, VALUES = ":rows", ":row sums", ":column sums", ":values"
GROUPS = ":groups"  # the largest weights of 32 of a row
_NOTHING = 1e-12  # a norm that stands for zero
_SMALL = 0.01  # of the largest: smaller ones are measured by this, for they may round to nothing
_PIECE = 1 << 22  # weights that are summed at once, in float64
_LONGEST = 1 << 20  # weights of a vector whose values are kept
_STACKED = 3
_GROUP = 32  # weights of a row: what mxfp8 scales together
_STEPS = 4  # of an octave: one of a byte's codes
_LOWEST = 48  # octaves below 1, of the code 0
_BELOW = 12  # octaves below the largest weight: smaller groups are taken for as large

Norms = dict[str, Tensor]
Figure = Literal["weights", "rows", "sums", "groups"]


@torch.no_grad()
def norms(model: Any) -> Norms:  # noqa: ANN401 - a transformers model
    """Return what is kept of each parameter and of each saved buffer, on the host.

    By its name the norms of its blocks (rows, columns). Of what has rows by its name and `ROWS`
    their norms and the roots of their sums of fourth powers (strips, 2), and by `ROW_SUMS` and
    `COLUMN_SUMS` sums (strips, SUMS + 1), the norm behind the sums. A strip is as many rows, or
    columns, as have 128 weights, for rounding moves fewer too far. By `GROUPS` the codes of the
    largest of each 32 weights of a row (rows, groups), bytes. Of a vector by its name and `VALUES`
    what it holds (1, size).
    """
    by_name: Norms = {}
    for name, weight in _weights(model):
        matrix = _matrix(weight)
        by_name[name] = _blocks(matrix)
        if len(matrix) > 1:
            by_name[name + ROWS] = _strips(matrix)
            by_name[name + GROUPS] = _largest(matrix)
            stacked = weight.shape[0] if weight.ndim >= _STACKED else 1
            planes = matrix.reshape(stacked, -1, matrix.shape[1])
            by_name[name + ROW_SUMS] = torch.cat([_sums(plane) for plane in planes])
            by_name[name + COLUMN_SUMS] = torch.cat([_sums(plane.T) for plane in planes])
        elif matrix.shape[1] <= _LONGEST:
            by_name[name + VALUES] = matrix
    return by_name


def plain(kept: Norms) -> Mapping[str, Sequence[Sequence[float]]]:
    """Return what is kept of weights as an engine tells it: bytes where it is that."""
    return {
        name: [bytes(row) for row in tensor.numpy()]
        if tensor.dtype == torch.uint8
        else tensor.tolist()
        for name, tensor in kept.items()
    }


def of_plain(lines: Mapping[str, Sequence[Sequence[float]]]) -> Norms:
    """Return what an engine tells of its weights, as `plain` has it, as tensors."""
    return {
        name: _of_bytes(rows) if rows and isinstance(rows[0], bytes) else torch.tensor(rows)
        for name, rows in lines.items()
    }


def _of_bytes(rows: Sequence[Any]) -> Tensor:
    return torch.frombuffer(bytearray().join(rows), dtype=torch.uint8).reshape(len(rows), -1)


def furthest(
    trained: Mapping[str, Tensor],
    served: Mapping[str, Tensor],
    but: Collection[str] = (),
    *,
    figure: Figure = "weights",
) -> tuple[float, str]:
    """Return the largest change by a figure, and the name of its tensor.

    `weights` is the relative change of a norm or a vector; `rows` that of a row's sum of squares,
    as a share of the root of its sum of fourth powers; `sums` that of a sum, as a share of the
    norm of its row or column; `groups` that of the largest of 32 weights, in octaves. `but` names
    the weights that are passed over.
    """
    changes = (
        (_apart(trained.get(name), served.get(name), name, figure), name)
        for name in sorted(trained.keys() | served.keys())
        if _counts(name, figure) and _weight_of(name) not in but
    )
    return max(changes, default=(0.0, ""))


def _counts(name: str, figure: Figure) -> bool:
    if figure == "rows":
        return name.endswith(ROWS)
    if figure == "groups" or name.endswith(GROUPS):
        return figure == "groups" and name.endswith(GROUPS)
    return name.endswith((ROW_SUMS, COLUMN_SUMS)) == (figure == "sums")


def _weight_of(name: str) -> str:
    return name.partition(":")[0]


def _weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters, and what else is saved with them and is a number."""
    yield from model.named_parameters()
    saved = model.state_dict().keys()
    for name, buffer in model.named_buffers():
        if name in saved and buffer.is_floating_point() and buffer.numel():
            yield name, buffer


def _apart(trained: Tensor | None, served: Tensor | None, name: str, figure: Figure) -> float:
    if trained is None or served is None:
        return math.inf
    if torch.equal(trained, served):
        return 0.0
    if trained.shape != served.shape or not (trained.isfinite() & served.isfinite()).all():
        return math.inf
    if figure != "weights":
        return _MEASURES[figure](trained, served)
    if name.endswith(VALUES):
        return _of_values(trained, served)
    norms_alone = slice(1) if name.endswith(ROWS) else slice(None)
    return _change(trained[:, norms_alone], served[:, norms_alone])


def _of_values(trained: Tensor, served: Tensor) -> float:
    largest = max(float(trained.abs().max()), _NOTHING)
    return float((served - trained).abs().max()) / largest


def _moved(trained: Tensor, served: Tensor) -> float:
    """Return by how much sums have moved at most, as a share of the norm of their strip.

    A strip is measured by a usual one of its matrix where it is smaller: what shares a scale with
    larger weights is rounded as they are.
    """
    usual = float(trained[:, -1].square().mean().sqrt())
    room = trained[:, -1].clamp(min=max(usual, _NOTHING))
    moved = (served[:, :-1] - trained[:, :-1]).square().mean(1).sqrt()
    return float((moved / room).max())


def _spread(trained: Tensor, served: Tensor) -> float:
    """Return by how much sums of squares have moved at most, as `furthest` measures rows.

    A row is measured by a usual one of its matrix where it is smaller, as `_moved` does.
    """
    before, after = trained.double(), served.double()
    usual = float(before[:, 1].square().mean().sqrt())
    moved = (after[:, 0].square() - before[:, 0].square()).abs()
    return float((moved / before[:, 1].clamp(min=max(usual, _NOTHING))).max())


def _octaves(trained: Tensor, served: Tensor) -> float:
    """Return by how much the largest weights of groups have changed at most, in octaves.

    Groups that are all but nothing beside the largest weight count as small ones: they may round
    to nothing.
    """
    before, after = trained.int(), served.int()
    least = max(int(before.max()) - _BELOW * _STEPS, 0)
    return float((after.clamp(min=least) - before.clamp(min=least)).abs().max()) / _STEPS


_MEASURES: Mapping[Figure, Callable[[Tensor, Tensor], float]] = MappingProxyType(
    {"rows": _spread, "sums": _moved, "groups": _octaves}
)


def _change(trained: Tensor, served: Tensor) -> float:
    least = max(float(trained.max()) * _SMALL, _NOTHING)
    return float(((served - trained).abs() / trained.clamp(min=least)).max())


def _matrix(weight: Tensor) -> Tensor:
    matrix = weight.detach().to("cpu", torch.float32)
    return matrix.reshape(-1, matrix.shape[-1]) if matrix.ndim > 1 else matrix.reshape(1, -1)


def _strips(matrix: Tensor) -> Tensor:
    """Return of strips of whole rows the norms, and the roots of sums of fourth powers.

    Both are (strips, 1), side by side.
    """
    together = -(-SIZE // matrix.shape[1])
    squares = matrix.square()
    powers = torch.stack([squares.sum(1), squares.square().sum(1)])
    padded = functional.pad(powers, (0, -len(matrix) % together))
    return padded.reshape(2, -1, together).sum(2).sqrt().T.contiguous()


def _largest(matrix: Tensor) -> Tensor:
    """Return the codes of the largest weights of groups of each row (rows, groups)."""
    short = -matrix.shape[1] % _GROUP
    padded = functional.pad(matrix, (0, short)) if short else matrix
    lowest, highest = padded.reshape(len(matrix), -1, _GROUP).aminmax(dim=-1)
    octaves = torch.maximum(highest, -lowest).log2()
    codes = ((octaves + _LOWEST) * _STEPS).round().nan_to_num(nan=255.0)
    return codes.clamp(0, 255).to(torch.uint8)


def _sums(matrix: Tensor) -> Tensor:
    """Return the signed sums of strips of whole rows, and their norms (strips, SUMS + 1)."""
    together = -(-SIZE // matrix.shape[1])
    width = together * matrix.shape[1]
    signs = _signs(width)
    strips = -(-len(matrix) // together)
    at_once = max(_PIECE // width, 1)
    sums = torch.empty(strips, SUMS + 1)
    for first in range(0, strips, at_once):
        part = matrix[first * together : (first + at_once) * together].to(torch.float64)
        padded = functional.pad(part, (0, 0, 0, -len(part) % together)).reshape(-1, width)
        sums[first : first + at_once, :SUMS] = padded @ signs
        sums[first : first + at_once, SUMS] = torch.linalg.vector_norm(padded, dim=1)
    return sums


@lru_cache(maxsize=8)
def _signs(size: int) -> Tensor:
    """Return the signs of so many weights (size, SUMS), the same ones everywhere and for ever."""
    digest = hashlib.shake_128(b"signs of weights").digest(-(-size * SUMS // 8))
    bits = np.unpackbits(np.frombuffer(digest, np.uint8))[: size * SUMS]
    return torch.from_numpy(bits.reshape(size, SUMS).astype(np.float64) * 2.0 - 1.0)


def _blocks(matrix: Tensor) -> Tensor:
    rows, columns = matrix.shape
    padded = functional.pad(matrix, (0, -columns % SIZE, 0, -rows % SIZE))
    blocks = padded.reshape(padded.shape[0] // SIZE, SIZE, padded.shape[1] // SIZE, SIZE)
    block_norms: Tensor = torch.linalg.vector_norm(blocks, dim=(1, 3))
    return block_norms
