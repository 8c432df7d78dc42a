"""A torch device that has an accelerator's own name. The name is given once a process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.optimizer import _foreach_supported_types as _of_optimizers
from torch.utils._foreach_utils import _foreach_supported_types as _of_gradients
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

from orchestrator.core.errors import JobError
from orchestrator.core.spec.hardware import Accelerator
from orchestrator.emulation import gaps
from orchestrator.emulation.backend import DeviceModule
from orchestrator.emulation.hooks import hooks
from orchestrator.emulation.kernels import device
from orchestrator.emulation.tensor import EmulatedTensor, unwrap, wrap

_KEY = "PrivateUse1"
_libraries: list[object] = []  # what they register goes when they go


def install(
    chip: Accelerator, *, count: int, unsupported: Sequence[str], on_host: Sequence[str]
) -> None:
    """Have this process see `count` devices of `chip`, less the operators that it lacks.

    To be called in the thread that trains: its backward passes stay in it.

    Raises:
        JobError: This process has a device by another name, or an operator's name is none.
    """
    if device.name not in {"", chip.device}:
        message = f"this process emulates {device.name!r} already, {chip.device!r} can't be added"
        raise JobError(f"{message}; use cluster=ray, where each attempt has a process")
    module = DeviceModule(chip.device, chip.name, count, chip.memory_gb)
    if not device.name:
        _register(chip.device, module)
    setattr(torch, chip.device, module)
    gaps.check((*unsupported, *on_host))
    device.refused, device.on_host = frozenset(unsupported), frozenset(on_host)
    device.kernels.clear()
    torch.autograd.set_multithreading_enabled(False)


def _register(name: str, module: DeviceModule) -> None:
    _setup_privateuseone_for_python_backend(name, backend_module=module)
    device.name, device.torch_device = name, torch.device(name, 0)
    library: Any = torch.library.Library("aten", "IMPL")  # type: ignore[no-untyped-call] # torch leaves it untyped
    library.impl("empty.memory_format", _empty, _KEY)
    library.impl("empty_strided", _empty_strided, _KEY)
    library.impl("_copy_from", _copy_from, _KEY)
    _libraries.append(library)
    # Optimizers take several tensors at once on a chip, where they know the kind of tensor.
    for known in (_of_optimizers, _of_gradients):
        known.append(EmulatedTensor)


# --- the three kernels that torch asks the device itself for -----------------------------------


def _empty(
    size: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    memory_format: torch.memory_format | None = None,
    **_: object,
) -> EmulatedTensor:
    form = memory_format or torch.contiguous_format
    return wrap(torch.empty(size, dtype=dtype, memory_format=form))


def _empty_strided(
    size: Sequence[int],
    stride: Sequence[int],
    *,
    dtype: torch.dtype | None = None,
    **_: object,
) -> EmulatedTensor:
    return wrap(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(
    source: torch.Tensor,
    target: torch.Tensor,
    non_blocking: bool = False,  # noqa: FBT001, FBT002 - torch calls it
) -> torch.Tensor:
    written = unwrap(target).copy_(unwrap(source), non_blocking=non_blocking)
    if hooks.memory is not None:
        hooks.memory(written)
    return target
