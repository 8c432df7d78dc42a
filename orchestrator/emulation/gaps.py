"""Operators that the emulated chip lacks, or that its maker's software hands to the host.

A name is that of an operator (`aten::isin`, all its overloads) or of one overload, as torch or a
maker's log writes it (`aten::isin.Tensor_Tensor`, `aten::isin.Tensor_Tensor_out`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch

from orchestrator.core.errors import JobError

_OUT = "out"


def check(names: Iterable[str]) -> None:
    """Refuse names that can never come up.

    Raises:
        JobError: torch has no such operator, or makes it out of others before a device sees it.
    """
    for name in names:
        overloads = [*_overloads(name)]
        if not overloads:
            raise JobError(f"unsupported {name!r} is no operator of torch {torch.__version__}")
        if all(is_composite(overload) for overload in overloads):
            message = f"unsupported {name!r} reaches no device: torch makes it out of others"
            raise JobError(f"{message}; name one of those")


def named(func: Any, names: frozenset[str]) -> bool:  # noqa: ANN401 - an operator of torch
    """Whether one of `names` means the operator `func`."""
    return bool(names) and not names.isdisjoint(_names(func))


def refuse(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> NoReturn:  # noqa: ANN401 - an operator of torch
    """Raise what torch itself raises where a device has no kernel for `func`.

    torch is asked, with tensors of the device that nothing emulates.
    """
    with torch._C._DisableTorchDispatch():  # noqa: SLF001 - what torch makes is not to be emulated
        func(*map(_bare, args), **{name: _bare(value) for name, value in kwargs.items()})
    # torch can do it without a kernel of the device, which the chip nevertheless can't
    raise NotImplementedError(_refusal(func))


def warn(func: Any, device: str) -> None:  # noqa: ANN401 - an operator of torch
    """Warn in the log, as torch_npu does, that an operator runs on the host."""
    sys.stderr.write(
        f"[W VariableFallbackKernel.cpp:51] Warning: CAUTION: The operator '{_qualified(func)}' "
        f"is not currently supported on the {device.upper()} backend and will fall back to run "
        f"on the CPU. This may have performance implications. (function {device}_cpu_fallback)\n"
    )


def _bare(value: Any) -> Any:  # noqa: ANN401 - whatever operators take
    if isinstance(value, list | tuple):
        return type(value)(map(_bare, value))
    if isinstance(value, torch.Tensor) and value.device.type != "cpu":
        return torch._C._acc.create_empty_tensor(tuple(value.shape), value.dtype)  # noqa: SLF001 - of the registration
    return value


def _refusal(func: Any) -> str:  # noqa: ANN401 - an operator of torch
    device = torch._C._get_privateuse1_backend_name()  # noqa: SLF001 - no public name for it
    return (
        f"Could not run '{_qualified(func)}' with arguments from the '{device}' backend. This "
        f"could be because the operator doesn't exist for this backend, or was omitted during "
        f"the selective/custom build process (if using custom build)."
    )


def _names(func: Any) -> Iterator[str]:  # noqa: ANN401 - an operator of torch
    """Yield the names that mean `func`: its own, and that of the variant which does the work."""
    base, overload = str(func._schema.name), func._overloadname  # noqa: SLF001 - no public name for it
    bare = "" if overload == "default" else str(overload)
    yield base
    yield f"{base}.{overload}"
    yield f"{base}.{bare}_{_OUT}" if bare else f"{base}.{_OUT}"


def _qualified(func: Any) -> str:  # noqa: ANN401 - an operator of torch
    *_, last = _names(func)
    return last


def _overloads(name: str) -> Iterator[Any]:
    space, _, rest = name.partition("::")
    packet = getattr(getattr(torch.ops, space, None), rest.partition(".")[0], None)
    for overload in packet.overloads() if packet is not None else ():
        operator = getattr(packet, overload)
        if not overload.endswith(_OUT) and name in _names(operator):
            yield operator


def is_composite(func: Any) -> bool:  # noqa: ANN401 - an operator of torch
    """Whether torch makes the operator out of others where a device has no kernel for it."""
    has = torch._C._dispatch_has_kernel_for_dispatch_key  # noqa: SLF001 - no public name for it
    return bool(has(func.name(), "CompositeImplicitAutograd"))
