"""A tensor of the emulated device: it wraps one of the CPU, which does its arithmetic.

Every operator on it comes through `__torch_dispatch__`, below autograd: unwrap, do it, wrap. What
an operator is like is found out once and kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from functools import partial
from typing import Any

import torch

from orchestrator.emulation import gaps
from orchestrator.emulation.hooks import hooks
from orchestrator.emulation.kernels import (
    MIXED,
    PRODUCTS,
    Gap,
    Kernel,
    Operator,
    Special,
    Value,
    device,
)
from orchestrator.emulation.late import attempt, fail

_CPU = torch.device("cpu")
_DATA: Any = torch.Tensor.data  # the descriptor that is torch's own


def unwrap(value: Value) -> Value:
    """Return `value` with the CPU's tensors for the device's."""
    if value.__class__ is EmulatedTensor:
        return value.on_cpu
    if value.__class__ is list or value.__class__ is tuple:
        return [unwrap(item) for item in value]
    return value


# --- the tensor ---


class EmulatedTensor(torch.Tensor):
    """A tensor of the emulated device; `on_cpu` is the CPU's."""

    on_cpu: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment] # noqa: SLF001 - as torch's documentation says

    @classmethod
    def __torch_dispatch__(  # type: ignore[override] # typed without what is passed
        cls,
        func: Operator,
        types: Sequence[type],
        args: Sequence[Value] = (),
        kwargs: Mapping[str, Value] | None = None,
    ) -> Value:
        """Do an operator on the CPU."""
        kernel = device.kernels.get(id(func)) or _learn(func)
        if hooks.before is not None:
            attempt(hooks.before)
        if kernel.gap is not None:
            kernel.gap(func, args, kwargs or {})
        if kernel.special is not None:
            return kernel.special(func, kernel, args, kwargs or {})
        inner = [_inside(value, kernel) for value in args]
        if not kwargs:
            out = func(*inner)
        elif "device" in kwargs:
            return _make(func, inner, kwargs)
        else:
            out = func(*inner, **{name: _inside(value, kernel) for name, value in kwargs.items()})
        if kernel.product and hooks.after is not None:
            out = hooks.after(out)
        if hooks.memory is not None:
            hooks.memory(out)
        return _outside(out)

    @property
    def data(self) -> torch.Tensor:
        """The tensor without its history."""
        data: torch.Tensor = _DATA.__get__(self)
        return data

    @data.setter
    def data(self, value: torch.Tensor) -> None:
        _DATA.__set__(self, value)
        self.on_cpu = unwrap(value)

    def tolist(self) -> Any:  # noqa: ANN401 - as torch declares it
        """Return the values as numbers."""
        return self.on_cpu.tolist()

    def untyped_storage(self) -> torch.UntypedStorage:
        """Return the memory that holds the values."""
        return self.on_cpu.untyped_storage()

    def data_ptr(self) -> int:
        """Return where the values are."""
        return self.on_cpu.data_ptr()

    def numpy(self, **_: Value) -> Any:  # noqa: ANN401 - there is nothing to return
        """Refuse, as every device does."""
        message = f"can't convert {self.device} device type tensor to numpy. Use Tensor.cpu()"
        raise TypeError(f"{message} to copy the tensor to host memory first.")

    def __array__(self, *_: Value) -> Any:  # noqa: ANN401 - numpy asks for it
        """Refuse, as every device does."""
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> EmulatedTensor:
        """Copy values, gradient and all."""
        if id(self) in memo:
            return memo[id(self)]  # type: ignore[no-any-return]
        copied = wrap(self.on_cpu.clone())
        copied.requires_grad = self.requires_grad
        copied.__dict__ |= {k: deepcopy(v, memo) for k, v in vars(self).items() if k != "on_cpu"}
        copied.grad = deepcopy(self.grad, memo)
        memo[id(self)] = copied
        return copied  # a Parameter stays one: that is in its dict

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Say what it wraps. Without this and the next, `module.to()` would part tied weights."""
        return ["on_cpu"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: object) -> EmulatedTensor:
        """Return a tensor around what was wrapped."""
        return wrap(inner["on_cpu"])

    def __reduce_ex__(self, _: object) -> tuple[Any, ...]:
        """Travel as the CPU's tensor, and come back to the device."""
        arguments = (self.cpu(), self.dtype, str(self.device), self.requires_grad)
        return torch._utils._rebuild_device_tensor_from_cpu_tensor, arguments  # noqa: SLF001 - as torch does for others

    def __repr__(self, **_: object) -> str:  # type: ignore[override] # all are torch's own
        """Show the values and the device."""
        text = repr(self.on_cpu)
        return f"{text[:-1]}, device='{self.device}')"


def wrap(inner: torch.Tensor) -> EmulatedTensor:
    """Return a tensor of the device around `inner`."""
    if inner.is_conj() or inner.is_neg():
        inner = _done(inner)
    tensor: EmulatedTensor = torch.Tensor._make_wrapper_subclass(  # noqa: SLF001 - as torch's documentation says
        EmulatedTensor,
        inner.size(),
        inner.stride(),
        inner.storage_offset(),
        None,
        inner.dtype,
        inner.layout,
        device.torch_device,
    )
    tensor.on_cpu = inner
    return tensor


def _done(inner: torch.Tensor) -> torch.Tensor:
    """Return a tensor that is to be conjugated or negated when it is read, with that done.

    Below the wrapper nothing reads it so.
    """
    if inner.is_conj():
        inner = inner.conj().conj_physical()
    return torch._neg_view(inner).neg() if inner.is_neg() else inner  # noqa: SLF001 - no public name for it


def _inside(value: Value, kernel: Kernel) -> Value:
    """Return what the CPU works with in place of `value`."""
    kind = value.__class__
    if kind is EmulatedTensor:
        return value.on_cpu
    if kind is list or kind is tuple:
        return [_inside(item, kernel) for item in value]
    if isinstance(value, torch.Tensor) and value.dim() and not kernel.mixed:
        message = "Expected all tensors to be on the same device, but found at least two devices"
        fail(RuntimeError(f"{message}, {device.torch_device} and {value.device}!"))
    return value


def _outside(value: Value) -> Value:
    """Return what the device gives in place of the CPU's `value`."""
    if isinstance(value, torch.Tensor):
        return value if value.__class__ is EmulatedTensor else wrap(value)
    if value.__class__ is list or value.__class__ is tuple:
        return value.__class__(_outside(item) for item in value)
    return value


# --- operators of their own kind ----------------------------------------------------------------


def _make(func: Operator, inner: Sequence[Value], kwargs: Mapping[str, Value]) -> Value:
    """Do an operator that says on which device its result is to be."""
    target = kwargs["device"]
    own = target is None or torch.device(target).type == device.name
    inner_kwargs = {name: unwrap(value) for name, value in kwargs.items()}
    out = func(*inner, **(inner_kwargs | {"device": _CPU} if own else inner_kwargs))
    return _outside(out) if own else out


def _mutate(
    func: Operator, kernel: Kernel, args: Sequence[Value], kwargs: Mapping[str, Value]
) -> Value:
    """Do an operator that writes into what it is given, and gives that back."""
    inner = [_inside(value, kernel) for value in args]
    inner_kwargs = {name: _inside(value, kernel) for name, value in kwargs.items()}
    out = func(*inner, **inner_kwargs)
    if kernel.product and hooks.after is not None:
        hooks.after(out)
    if hooks.memory is not None:
        hooks.memory(out)
    if "out" in kwargs:
        for mine, theirs in _pairs([*inner_kwargs.values()], [*kwargs.values()]):
            if mine.shape != theirs.shape:  # torch makes some, as arange, of an empty one
                theirs.data = wrap(mine)
    if inner and out is inner[0]:  # as nearly all do
        return args[0]
    outer_of = {id(mine): theirs for mine, theirs in _pairs(inner, args)}
    outer_of |= {
        id(mine): theirs for mine, theirs in _pairs([*inner_kwargs.values()], [*kwargs.values()])
    }
    return _given_back(out, outer_of)


def _given_back(out: Value, outer: Mapping[int, Value]) -> Value:
    """Return `out` with the tensors that were given for those that they wrap."""
    if id(out) in outer:
        return outer[id(out)]
    if out.__class__ is list or out.__class__ is tuple:
        return out.__class__(_given_back(item, outer) for item in out)
    return _outside(out)


def _pairs(inner: Sequence[Value], outer: Sequence[Value]) -> Iterator[tuple[Value, Value]]:
    for mine, theirs in zip(inner, outer, strict=True):
        if isinstance(mine, torch.Tensor):
            yield mine, theirs
        elif mine.__class__ is list:
            yield from _pairs(mine, theirs)


def _collect(
    func: Operator, kernel: Kernel, args: Sequence[Value], kwargs: Mapping[str, Value]
) -> Value:
    """Begin a collective over a group of the host, if it does not fail."""
    if hooks.collective is not None:
        hooks.collective()
    return _mutate(func, kernel, args, kwargs)


def _reshape(
    func: Operator, _: Kernel, args: Sequence[Value], kwargs: Mapping[str, Value]
) -> Value:
    """Do an operator that changes the shape of a tensor in its place (`squeeze_`, `t_`)."""
    func(*map(unwrap, args), **kwargs)
    with torch._C._DisableTorchDispatch():  # noqa: SLF001 - the wrapper's own shape
        func(*args, **kwargs)
    return args[0]


def _take_apart(
    func: Operator, _: Kernel, args: Sequence[Value], kwargs: Mapping[str, Value]
) -> Value:
    """Do an operator by those that torch makes it of: in inference mode that is left to us."""
    return func.decompose(*args, **kwargs)


def _histogram(
    func: Operator, _: Kernel, args: Sequence[Value], kwargs: Mapping[str, Value]
) -> Value:
    """Count whole numbers too, as chips do and the CPU does not."""
    values = unwrap(args[0])
    counts = func(values.double(), *args[1:], **kwargs)
    return _outside(counts.to(values.dtype))


def _refuse(func: Operator, args: Sequence[Value], kwargs: Mapping[str, Value]) -> None:
    """Lack the operator."""
    attempt(partial(gaps.refuse, func, args, kwargs))


def _warn(func: Operator, _: Sequence[Value], __: Mapping[str, Value]) -> None:
    """Warn, once, that the host does the operator, which it does for all of them here."""
    gaps.warn(func, device.name)
    device.kernels[id(func)].gap = None


def _learn(func: Operator) -> Kernel:
    space, _, name = str(func._schema.name).partition("::")  # noqa: SLF001 - no public name for it
    kernel = device.kernels[id(func)] = Kernel(
        mixed=name in MIXED or space == "c10d",
        product=name in PRODUCTS,
        gap=_gap(func),
        special=_special(func, space),
    )
    return kernel


def _gap(func: Operator) -> Gap | None:
    if gaps.named(func, device.refused):
        return _refuse
    return _warn if gaps.named(func, device.on_host) else None


def _special(func: Operator, space: str) -> Special | None:
    kinds: tuple[tuple[bool, Special], ...] = (
        (space == "c10d", _collect),
        (func._schema.name == "aten::histc", _histogram),  # noqa: SLF001 - no public name for it
        (gaps.is_composite(func), _take_apart),
        (torch.Tag.inplace_view in func.tags, _reshape),
        (func._schema.is_mutable, _mutate),  # noqa: SLF001 - no public name for it
    )
    return next((special for fits, special in kinds if fits), None)
