"""Records the operators that a piece of work uses, and does each again, one at a time.

An operator that the device lacks is done on the host instead, so that the work goes on and the
next gap is found too. Done again by itself, each operator is seen to be there or not, and its
result is compared with the host's, or with what torch makes it of where the host has none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch._decomp import decomposition_table
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from jobs.qualification.absolute_error import absolute_error, magnitude
from jobs.qualification.ties import INDEXES, bound, other_picks

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
_OF_LISTS = ("aten::_foreach_", "aten::_fused_ada", "aten::_fused_sgd", "aten::_amp_foreach_")
_SINGLE = 4  # bytes
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
    """An operator with the arguments that it had."""

    func: Operator
    args: Sequence[Value]
    kwargs: Mapping[str, Value]

    @property
    def name(self) -> str:
        """The operator's name."""
        return name_of(self.func)


@dataclass(slots=True)
class Tried:
    """What became of an operator.

    Attributes:
        name: Its name.
        gap: Says that it is missing.
        wrong: Says how it differs.
        compared: Whether there was something to compare it with.
        phases: The phases of the work that use it.
    """

    name: str
    gap: str = ""
    wrong: str = ""
    compared: bool = True
    phases: set[str] = field(default_factory=set)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Tries every operator once for each kind of arguments; `phase` is what goes on.

    Each is tried where it comes up, on copies of its arguments, which are then let go. Within a
    backward pass nothing may fail: there they are kept until `flush`.
    """

    def __init__(self, device: torch.device, sign: Callable[[], None] = lambda: None) -> None:
        """Record what is done on `device`; `sign` is called before each trial, which may last."""
        super().__init__()  # type: ignore[no-untyped-call] # as above
        self.phase = ""
        self.tried: dict[object, Tried] = {}
        self._kept: dict[object, Call] = {}
        self._device = device
        self._sign = sign

    def flush(self) -> None:
        """Try what was kept."""
        while self._kept:
            key, call = self._kept.popitem()
            self._sign()
            self.tried[key] = replace(again(call), phases=self.tried[key].phases)

    def __torch_dispatch__(
        self,
        func: Operator,
        types: Sequence[type],
        args: Sequence[Value] = (),
        kwargs: Mapping[str, Value] | None = None,
    ) -> Value:
        """Try an operator, and do it: on the device, else on the host."""
        named = kwargs or {}
        if self._concerns(args, named):
            self._note(func, args, named)
        try:
            return func(*args, **named)
        except RuntimeError as error:
            if not missing(error):
                raise
        return on_host(func, args, named, self._device)

    def _note(self, func: Operator, args: Sequence[Value], kwargs: Mapping[str, Value]) -> None:
        key = _key(func, args, kwargs)
        if key not in self.tried:
            self._sign()
            call = Call(func, *_sampled(func, args, kwargs))
            backward = torch._C._current_graph_task_id() != -1  # noqa: SLF001 - no public name for it
            if backward:
                self._kept[key] = Call(func, _copied(call.args), _copied(call.kwargs))
            self.tried[key] = Tried(call.name) if backward else again(call)
        self.tried[key].phases.add(self.phase)

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


@torch.no_grad()
def again(call: Call) -> Tried:
    """Do an operator by itself, on the device and on the host, and compare."""
    args, kwargs = _copied(call.args), _copied(call.kwargs)
    inner, named = tree_map(_down, tuple(args)), tree_map(_down, dict(kwargs))
    try:
        actual = call.func(*args, **kwargs)
    except RuntimeError as error:
        said = _first(error)
        return Tried(call.name, gap=said) if missing(error) else Tried(call.name, wrong=said)
    if _DRAWN.search(call.name):
        return Tried(call.name)
    try:
        expected = _of_host(call.func)(*inner, **named)
    except RuntimeError:
        return Tried(call.name, compared=False)
    if call.name in INDEXES:
        given, dim = inner[0], bound(call.func, inner, named).get("dim")
        return Tried(call.name, wrong=other_picks(given, actual, expected, dim))
    if not call.func._schema.is_mutable:  # noqa: SLF001 - no public name for it
        return Tried(call.name, wrong=difference(actual, expected))
    return Tried(call.name, wrong=difference((actual, args, kwargs), (expected, inner, named)))


def _of_host(func: Operator) -> Operator:
    """Return what the host does for an operator: its own kernel, or what torch makes it of."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key  # noqa: SLF001 - no public name for it
    if has(func.name(), "CPU") or has(func.name(), "CompositeImplicitAutograd"):
        return func
    return decomposition_table.get(func, func)


def difference(actual: Value, expected: Value) -> str:
    """Return how `actual` differs from `expected`; nothing where it does not, but for rounding."""
    pairs = zip(tree_leaves(actual), tree_leaves(expected), strict=True)
    for leaf, reference in pairs:
        if isinstance(leaf, torch.Tensor) and isinstance(reference, torch.Tensor):
            said = _differs(leaf.detach().cpu(), reference.detach().cpu())
            if said:
                return said
    return ""


def _differs(actual: torch.Tensor, expected: torch.Tensor) -> str:
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        kinds = [f"{tensor.dtype} {tuple(tensor.shape)}" for tensor in (actual, expected)]
        return f"gives {', not '.join(kinds)}"
    if torch.equal(actual, expected):
        return ""
    if not actual.is_floating_point():
        return "gives other whole numbers than the host"
    left, right = (
        each if each.dtype.itemsize >= _SINGLE else each.float() for each in (actual, expected)
    )
    if not torch.equal(left.isnan(), right.isnan()):
        return "gives NaN elsewhere than the host"
    left, right = (torch.where(each.isnan(), 0.0, each) for each in (left, right))
    far = absolute_error(left, right).max()
    if far.isinf():
        return "gives infinity elsewhere than the host"
    error = float(far / magnitude(right).max().clamp(min=1e-6))
    allowed = _TOLERANCES.get(actual.dtype, _TOLERANCE)
    return "" if error <= allowed else f"differs from the host by {error:.1e} of the largest value"


def _sampled(
    func: Operator, args: Sequence[Value], kwargs: Mapping[str, Value]
) -> tuple[Sequence[Value], Mapping[str, Value]]:
    """Return the arguments of an operator; of one on lists of tensors, one of each kind.

    An optimizer takes all weights, gradients and moments at once: copies of all find no room.
    """
    lists = [value for value in (*args, *kwargs.values()) if _is_tensors(value)]
    if not lists or not func._schema.name.startswith(_OF_LISTS):  # noqa: SLF001 - no public name for it
        return args, kwargs
    kinds = {(tuple(tensor.shape), tensor.dtype): place for place, tensor in enumerate(lists[0])}
    places, length = sorted(kinds.values()), len(lists[0])

    def cut(value: Value) -> Value:
        whole = isinstance(value, list | tuple) and len(value) == length
        return [value[place] for place in places] if whole else value

    return [cut(value) for value in args], {name: cut(value) for name, value in kwargs.items()}


def _is_tensors(value: Value) -> bool:
    return bool(isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor))


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
        lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf,
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
