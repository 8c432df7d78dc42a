"""Makes a fresh model a weight at a time, with the very numbers that it has when made at once.

A model draws its numbers while it is built, those of most weights twice: as torch makes a layer,
and as transformers begins it anew. So it is built twice here. First its weights are on no memory,
and what is done to each is noted: which step is the last, and from which on its numbers are its
own. Then everything is drawn, in the same order; what is drawn over later is let go at once, and a
weight is handed over after its last step. The most that is held is about the largest weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FEWEST = 256  # numbers of a weight; what has fewer is made as it comes, and kept
_ATEN = torch.ops.aten
# Steps after which nothing is left of what a weight was before.
_OVERWRITES = {
    *(_ATEN.normal_.default, _ATEN.uniform_.default, _ATEN.zero_.default, _ATEN.fill_.Scalar),
    *(_ATEN.fill_.Tensor, _ATEN.copy_.default),
}

Take = Callable[[str, Tensor], None]
Operation: TypeAlias = Any  # one of torch's, whose types are not public


class UnknownStepError(Exception):
    """A model does something with a weight as it is made of which not all is known here."""


class ModelByWeights:
    """A fresh model that can be made a weight at a time, any number of times.

    Attributes:
        outline: The model, whose large weights are on no memory.
        names: Those of these weights, in the order in which they are handed over.
    """

    def __init__(self, make: Callable[[], nn.Module], *, fewest: int = FEWEST) -> None:
        """See how `make` makes the model; it draws numbers from torch's generator of the CPU.

        What has fewer numbers than `fewest` is no large weight.

        Raises:
            UnknownStepError: The model has to be made at once.
        """
        self._make, self._generator = make, torch.get_rng_state()
        self._noted = _Noted(fewest)
        try:
            with self._noted:
                self.outline = make()
        finally:
            torch.set_rng_state(self._generator)
        weights, numbers = self._noted.weights, self._noted.numbers
        tensors = (*self.outline.named_parameters(), *self.outline.named_buffers())
        named = {numbers[_storage(tensor)]: name for name, tensor in tensors if tensor.is_meta}
        for number in (number for number in named if not weights[number].steps):
            raise UnknownStepError(f"nothing is written into {named[number]!r}")
        in_turn = sorted(named, key=lambda number: weights[number].ended)
        self._names = named
        self.names: Sequence[str] = [named[number] for number in in_turn]

    def hand_over(self, take: Take) -> nn.Module:
        """Make the model; `take` gets each large weight. Return the model without these."""
        torch.set_rng_state(self._generator)
        with _Drawn(self._noted, self._names, take):
            return self._make()


@dataclass(slots=True)
class _NotedWeight:
    """What is done to a weight: so many steps, of which those from `lasting` on are seen in it."""

    outline: Tensor
    steps: int = 0
    lasting: int = 0
    ended: int = 0
    values: Tensor | None = None


class _Noted(TorchDispatchMode):  # type: ignore[no-untyped-call] # untyped there
    """Puts weights on no memory, and notes what is done to them."""

    def __init__(self, fewest: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.fewest = fewest
        self.weights: list[_NotedWeight] = []
        self.numbers: dict[int, int] = {}  # of weights, by their storage
        self._clock = count()

    def __torch_dispatch__(
        self,
        func: Operation,
        types: object,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever an operation returns
        kwargs = kwargs or {}
        if func is _ATEN.empty.memory_format and _is_weight(args[0], kwargs, self.fewest):
            outline = func(*args, **{**kwargs, "device": torch.device("meta")})
            self.numbers[_storage(outline)] = len(self.weights)
            self.weights.append(_NotedWeight(outline))
            return outline
        touched = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor) and t.is_meta]
        if not touched or func.is_view:
            return func(*args, **kwargs)
        number = self.numbers.get(_storage(touched[0]))
        if len(touched) > 1 or touched[0] is not args[0] or number is None or not _is_step(func):
            raise UnknownStepError(str(func))
        self._step(number, func, args, kwargs)
        return args[0]

    def _step(
        self, number: int, func: Operation, args: Sequence[Any], _: Mapping[str, Any]
    ) -> None:
        weight = self.weights[number]
        if func in _OVERWRITES and args[0].numel() == weight.outline.numel():
            weight.lasting = weight.steps
        weight.steps += 1
        weight.ended = next(self._clock)


class _Drawn(_Noted):  # type: ignore[no-untyped-call] # as above
    """Draws the numbers of weights whose steps were noted; hands those over that have names."""

    def __init__(self, noted: _Noted, names: Mapping[int, str], take: Take) -> None:
        super().__init__(noted.fewest)
        self._as_noted, self._names, self._take = noted.weights, names, take

    def _step(
        self, number: int, func: Operation, args: Sequence[Any], more: Mapping[str, Any]
    ) -> None:
        weight, noted = self.weights[number], self._as_noted[number]
        outline, (target, *values) = weight.outline, args
        lasts = number in self._names and weight.steps >= noted.lasting
        if lasts and weight.values is None:
            weight.values = torch.empty(outline.shape, dtype=outline.dtype)
        if weight.values is not None:
            place = (target.size(), target.stride(), target.storage_offset())
            func(weight.values.as_strided(*place), *values, **more)
        elif torch.Tag.nondeterministic_seeded in func.tags:  # for the generator alone
            drawn = torch.empty_strided(target.size(), target.stride(), dtype=target.dtype)
            func(drawn, *values, **more)
        weight.steps += 1
        if weight.values is not None and weight.steps == noted.steps:
            self._take(self._names[number], weight.values)
            weight.values = None


def _is_weight(shape: Sequence[int], more: Mapping[str, Any], fewest: int) -> bool:
    device = more.get("device")
    return prod(shape) >= fewest and (device is None or torch.device(device).type == "cpu")


def _is_step(func: Operation) -> bool:
    """Whether an operation changes its first tensor, in place, and nothing else."""
    returned: str = func.__name__.partition(".")[0]
    return returned.endswith("_") and not returned.startswith("_")


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001 - which of the storages it is
