"""Operators that give places of values: where values are equal, any of their places is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Value: TypeAlias = Any  # what operators take and give

# Those that give the place of a value, or the values with their places.
INDEXES = frozenset(
    f"aten::{name}"
    for name in (
        *("argmax", "argmin", "argsort", "argsort.stable", "sort", "sort.stable", "topk"),
        *("max.dim", "min.dim", "median.dim", "nanmedian.dim", "kthvalue", "mode"),
    )
)


def bound(func: Any, args: Sequence[Value], kwargs: Mapping[str, Value]) -> dict[str, Value]:  # noqa: ANN401 - an operator of torch
    """Return the arguments of an operator by their names, its own defaults among them."""
    declared = func._schema.arguments  # noqa: SLF001 - no public name for it
    defaults = {
        argument.name: argument.default_value
        for argument in declared
        if argument.has_default_value()
    }
    return {
        **defaults,
        **dict(zip((argument.name for argument in declared), args, strict=False)),
        **kwargs,
    }


def other_picks(source: Tensor, actual: Value, expected: Value, dim: int | None) -> str:
    """Return how the values that were picked out of `source` differ; nothing where they are equal.

    `actual` and `expected` are places, or values and places, along `dim` (of all where `None`).
    """
    mine, theirs = (_places(value) for value in (actual, expected))
    if mine.shape != theirs.shape or mine.dtype != theirs.dtype:
        return f"gives places of shape {tuple(mine.shape)}, not {tuple(theirs.shape)}"
    along = source.flatten() if dim is None else source
    axis = 0 if dim is None else dim
    mine, theirs = (_along(places, along, axis) for places in (mine, theirs))
    if mine.numel() and not 0 <= int(mine.min()) <= int(mine.max()) < along.shape[axis]:
        return "gives places that are not there"
    if _repeats(mine, axis):
        return "gives a place twice"
    picked = along.take_along_dim(mine, axis)
    if not torch.equal(picked, along.take_along_dim(theirs, axis)):
        return "gives the places of other values than the host"
    values = None if isinstance(actual, Tensor) else actual[0].cpu().reshape(picked.shape)
    return (
        ""
        if values is None or torch.equal(values, picked)
        else "gives other values than its places"
    )


def _places(value: Value) -> Tensor:
    places: Tensor = value if isinstance(value, Tensor) else value[1]
    return places.cpu()


def _along(places: Tensor, source: Tensor, axis: int) -> Tensor:
    """Return places with a dimension of their own along `axis`, which some operators leave out."""
    if source.dim() == places.dim():
        return places
    return places.reshape(1) if places.dim() == 0 else places.unsqueeze(axis)


def _repeats(places: Tensor, axis: int) -> bool:
    ordered = places.sort(axis).values
    return bool((ordered.diff(dim=axis) == 0).any())
