"""Records the operators that a piece of work uses, and does each again, one at a time.

While it records, an operator that the device lacks is done on the host instead, so that the work
goes on and the next gap is found too. Done again by itself, out of any backward pass, each
operator is seen to be there or not, and its result is compared with the host's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

Operator: TypeAlias = Any  # torch gives it no useful type
Value: TypeAlias = Any  # what operators take and give

# How torch and the makers say that an operator is not there.
_MISSING = re.compile(
    r"not[ _](currently )?(supported|implemented)|only supported|does not support|unsupported"
    r"|no kernel image|Cannot find bin of op|Invalid scaling configuration|Could not run '"
    r"|ERR01007|EZ3002",
    re.IGNORECASE,
)
_TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 4e-2}
_TOLERANCE = 2e-3  # of float32, whose sums a device may take in another order
_DRAWN = re.compile(r"rand|normal|uniform|bernoulli|dropout|multinomial|exponential|empty|new_em")


def missing(error: BaseException) -> bool:
    """Whether `error` says that the device has no such operator."""
    return isinstance(error, NotImplementedError) or bool(_MISSING.search(str(error)))


def name_of(func: Operator) -> str:
    """Return an operator's name as torch and the makers' logs write it."""
    overload = func._overloadname  # noqa: SLF001 - no public name for it
    return str(func._schema.name) + ("" if overload == "default" else f".{overload}")  # noqa: SLF001 - as above


@dataclass(slots=True)
class Call:
    """An operator with the arguments that it had, and the phases of the work that use it."""

    func: Operator
    args: Sequence[Value]
    kwargs: Mapping[str, Value]
    phases: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The operator's name."""
        return name_of(self.func)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Keeps one call of every operator for each kind of arguments; `phase` is what goes on."""

    def __init__(self, device: torch.device) -> None:
        """Record what is done on `device`."""
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.phase = ""
        self.calls: dict[object, Call] = {}
        self._device = device

    def __torch_dispatch__(
        self,
        func: Operator,
        types: Sequence[type],
        args: Sequence[Value] = (),
        kwargs: Mapping[str, Value] | None = None,
    ) -> Value:
        """Note an operator, and do it: on the device, else on the host."""
        named = kwargs or {}
        if self._concerns(args, named):
            key = _key(func, args, named)
            if key not in self.calls:
                self.calls[key] = Call(func, _copied(args), _copied(named))
            self.calls[key].phases.add(self.phase)
        try:
            return func(*args, **named)
        except RuntimeError as error:
            if not missing(error):
                raise
        return on_host(func, args, named, self._device)

    def _concerns(self, args: Sequence[Value], kwargs: Mapping[str, Value]) -> bool:
        wanted = kwargs.get("device")
        if wanted is not None and torch.device(wanted).type == self._device.type:
            return True
        return any(
            leaf.device.type == self._device.type
            for leaf in tree_leaves((args, dict(kwargs)))
            if isinstance(leaf, torch.Tensor)
        )


def on_host(
    func: Operator, args: Sequence[Value], kwargs: Mapping[str, Value], device: torch.device
) -> Value:
    """Do an operator on the host; what it writes into is written on the device too."""
    pairs: dict[int, torch.Tensor] = {}

    def down(value: Value) -> Value:
        if not isinstance(value, torch.Tensor):
            return torch.device("cpu") if isinstance(value, torch.device) else value
        copy = value.cpu()
        pairs[id(copy)] = value
        return copy

    inner, named = tree_map(down, tuple(args)), tree_map(down, dict(kwargs))
    out = func(*inner, **named)
    if func._schema.is_mutable:  # noqa: SLF001 - no public name for it
        for leaf in tree_leaves((inner, named)):
            if isinstance(leaf, torch.Tensor) and id(leaf) in pairs:
                pairs[id(leaf)].copy_(leaf)

    def up(value: Value) -> Value:
        if not isinstance(value, torch.Tensor):
            return value
        return pairs[id(value)] if id(value) in pairs else value.to(device)

    return tree_map(up, out)


# --- one at a time ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of an operator: `gap` says that it is missing, `wrong` how it differs."""

    call: Call
    gap: str = ""
    wrong: str = ""


@torch.no_grad()
def again(call: Call) -> Tried:
    """Do a recorded operator by itself, on the device and on the host, and compare."""
    args, kwargs = _copied(call.args), _copied(call.kwargs)
    inner, named = tree_map(_down, tuple(args)), tree_map(_down, dict(kwargs))
    try:
        found = call.func(*args, **kwargs)
    except RuntimeError as error:
        if missing(error):
            return Tried(call, gap=_first(error))
        return Tried(call, wrong=_first(error))
    try:
        wanted = call.func(*inner, **named)
    except RuntimeError:
        return Tried(call)  # the host has no such operator: there is nothing to compare with
    if _DRAWN.search(call.name):
        return Tried(call)
    return Tried(call, wrong=difference((found, args, kwargs), (wanted, inner, named)))


def difference(found: Value, wanted: Value) -> str:
    """Return how `found` differs from `wanted`; nothing where it does not, but for rounding."""
    pairs = zip(tree_leaves(found), tree_leaves(wanted), strict=True)
    for one, other in pairs:
        if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
            said = _differs(one.detach().cpu(), other.detach().cpu())
            if said:
                return said
    return ""


def _differs(one: torch.Tensor, other: torch.Tensor) -> str:
    if one.shape != other.shape or one.dtype != other.dtype:
        return f"gives {one.dtype} {tuple(one.shape)}, not {other.dtype} {tuple(other.shape)}"
    if one.numel() == 0:
        return ""
    if not one.is_floating_point():
        return "" if torch.equal(one, other) else "gives other whole numbers than the host"
    left, right = one.double(), other.double()
    if not torch.equal(left.isnan(), right.isnan()):
        return "gives NaN elsewhere than the host"
    left, right = left.nan_to_num(), right.nan_to_num()
    error = float((left - right).abs().max() / right.abs().max().clamp(min=1e-6))
    allowed = _TOLERANCES.get(one.dtype, _TOLERANCE)
    return "" if error <= allowed else f"differs from the host by {error:.1e} of the largest value"


def _first(error: BaseException) -> str:
    """Return the first sentence of what an error says, of bearable length."""
    return re.split(r"\n|\.\s", str(error), maxsplit=1)[0][:200]


def _down(value: Value) -> Value:
    if isinstance(value, torch.Tensor):
        return value.cpu().clone()
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _copied(value: Value) -> Value:
    """Return a copy that what follows does not change; views keep their strides."""
    return tree_map(
        lambda one: one.detach().clone() if isinstance(one, torch.Tensor) else one,
        tuple(value) if isinstance(value, Sequence) else dict(value),
    )


def _key(func: Operator, args: Sequence[Value], kwargs: Mapping[str, Value]) -> object:
    leaves = tree_leaves((tuple(args), dict(kwargs)))
    return (
        name_of(func),
        tuple(
            (tuple(leaf.shape), str(leaf.dtype))
            if isinstance(leaf, torch.Tensor)
            else type(leaf).__name__
            for leaf in leaves
        ),
    )
