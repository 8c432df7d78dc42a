"""What is known of operators on the emulated device, found out once and kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

Value: TypeAlias = Any  # what operators take and give: tensors, numbers, lists of them
Operator: TypeAlias = Any  # torch gives it no useful type

PRODUCTS = frozenset({"mm", "addmm", "bmm", "baddbmm", "convolution", "_int_mm", "_scaled_mm"})
# Operators that take tensors of the host together with those of the device.
MIXED = frozenset(
    {"copy_", "_copy_from", "_foreach_copy_", "index", "index_put", "index_put_"}
    | {"_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
)


@dataclass(slots=True)
class Kernel:
    """What is known of an operator."""

    mixed: bool
    product: bool
    gap: Gap | None
    special: Special | None


Gap: TypeAlias = Callable[[Operator, Sequence[Value], Mapping[str, Value]], None]
Special: TypeAlias = Callable[[Operator, Kernel, Sequence[Value], Mapping[str, Value]], Value]


class Device:
    """The device that this process has; it is here before it has a name."""

    def __init__(self) -> None:
        self.name = ""
        self.torch_device = torch.device("cpu")
        self.refused: frozenset[str] = frozenset()
        self.on_host: frozenset[str] = frozenset()
        self.kernels: dict[int, Kernel] = {}  # by id: an operator lives for ever, its hash is slow


device = Device()
