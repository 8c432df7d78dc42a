"""The chip's own backend for collectives, by its own name: gloo does the work on host memory.

`init_process_group("hccl")` takes the way that it takes with the maker's package. Every
collective asks first whether a fault is due, and a reduction refuses the number types that the
maker's own refuses (the chip's `reduces`), in the maker's words (`reductions.yaml`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from types import MappingProxyType
from typing import Any, TypeAlias

import torch
from torch import distributed as dist

from orchestrator.core.spec.hardware import Accelerator
from orchestrator.emulation.hooks import hooks
from orchestrator.emulation.reductions import Reductions
from orchestrator.emulation.tensor import unwrap

Value: TypeAlias = Any  # what collectives take: tensors, lists of them, options

# What torch asks of a group, and what gloo calls it.
_COLLECTIVES: Mapping[str, str] = MappingProxyType(
    {
        "all_gather_single": "_allgather_base",
        "all_to_all_single": "alltoall_base",
        "reduce_scatter_single": "_reduce_scatter_base",
        **{
            name: name
            for name in (
                "allgather",
                "allgather_coalesced",
                "allreduce",
                "allreduce_coalesced",
                "alltoall",
                "barrier",
                "broadcast",
                "gather",
                "recv",
                "reduce",
                "reduce_scatter",
                "scatter",
                "send",
            )
        },
    }
)

# Those that add numbers up, by the names of gloo.
_REDUCTIONS = frozenset(
    {"allreduce", "allreduce_coalesced", "reduce", "reduce_scatter", "_reduce_scatter_base"}
)

# What gloo does not reduce, and in what it does: sums modulo 2^16 are the same.
_WIDER: Mapping[torch.dtype, torch.dtype] = MappingProxyType({torch.int16: torch.int32})

_registered: dict[str, Reductions] = {}


def register(name: str, devices: Sequence[str], chip: Accelerator) -> None:
    """Let `init_process_group(name)` open an emulated group for tensors of `devices`."""
    known = name in _registered
    _registered[name] = Reductions(chip.backend, frozenset(chip.reduces))
    if not known:
        on = list(dict.fromkeys(devices))
        dist.Backend.register_backend(name, _maker(name), devices=on)


def _maker(name: str) -> Callable[[Value, int, int, timedelta], EmulatedGroup]:
    def make(store: Value, rank: int, size: int, timeout: timedelta) -> EmulatedGroup:
        if hooks.collective is not None:
            hooks.collective()
        inner = dist.ProcessGroupGloo(store, rank, size, timeout)
        return EmulatedGroup(name, inner, _registered[name])

    return make


class EmulatedWork(dist.Work):
    """A collective on its way. It gives back what was put in, as torch's DDP wants it."""

    def __init__(self, inner: dist.Work, outputs: Value) -> None:
        """Stand for `inner`, which writes into the CPU's side of `outputs`."""
        super().__init__()
        self._work = inner
        self._outputs = outputs

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait until it is done."""
        done = self._work.wait(timeout) if timeout else self._work.wait()
        if hooks.link is not None:
            hooks.link()
        return done

    def is_completed(self) -> bool:
        """Whether it is done."""
        return self._work.is_completed()

    def result(self) -> Value:
        """Return what it gives."""
        return self._outputs

    def get_future(self) -> Value:
        """Return the future of what it gives."""

        def give(done: Value) -> Value:
            done.value()  # raises what went wrong
            return self._outputs

        return self._work.get_future().then(give)


class EmulatedGroup(dist.ProcessGroup):
    """A process group of an emulated chip. Its collectives are set below, all of one form."""

    def __init__(self, name: str, inner: Value, reductions: Reductions) -> None:
        """Do over `inner` what is asked of `name`."""
        super().__init__(inner.rank(), inner.size())  # type: ignore[call-arg] # typed for C++ groups alone
        self._name = name
        self._inner = inner
        self._reductions = reductions
        self._title = ""

    def getBackendName(self) -> str:  # noqa: N802 - torch's own name for it
        """Return the name that it goes by."""
        return self._name

    @property
    def pg_name(self) -> str:
        """Name of the group."""
        return self._title

    @property
    def group_name(self) -> str:  # type: ignore[override] # a text by a name of its own
        """Name of the group."""
        return self._title

    def _set_group_name(self, name: str) -> None:
        self._title = name

    def do(self, collective: str, args: Sequence[Value], named: Mapping[str, Value]) -> dist.Work:
        """Begin a collective, if it does not fail."""
        if collective in _REDUCTIONS:
            for tensor in _tensors(args):
                self._reductions.check(str(tensor.dtype).removeprefix("torch."))
        if hooks.collective is not None:
            hooks.collective()
        on_host = [unwrap(value) for value in args]
        narrow = [
            tensor
            for tensor in (_tensors(on_host) if collective in _REDUCTIONS else ())
            if tensor.dtype in _WIDER
        ]
        wide = {id(tensor): tensor.to(_WIDER[tensor.dtype]) for tensor in narrow}
        work = getattr(self._inner, collective)(*(_put(v, wide) for v in on_host), **named)
        if narrow:
            work.wait()  # the numbers of the chip's own type are there when it is done
            for tensor in narrow:
                tensor.copy_(wide[id(tensor)])
        return EmulatedWork(work, args[0] if args else [])


def _put(value: Value, others: Mapping[int, torch.Tensor]) -> Value:
    """Return a value with `others` in the place of its tensors, by their identities."""
    if isinstance(value, list | tuple):
        return [_put(item, others) for item in value]
    return others.get(id(value), value)


def _tensors(value: Value) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _collective(name: str) -> Callable[..., dist.Work]:
    def begin(group: EmulatedGroup, *args: Value, **named: Value) -> dist.Work:
        return group.do(name, args, named)

    return begin


for _asked, _done in _COLLECTIVES.items():
    setattr(EmulatedGroup, _asked, _collective(_done))
