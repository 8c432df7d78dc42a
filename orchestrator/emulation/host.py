"""Sees the operators of a plain CPU device, while a fault waits for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.emulation.hooks import hooks
from orchestrator.emulation.kernels import PRODUCTS


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Shows the result of each operator to the hooks that wait for it."""

    def __torch_dispatch__(
        self,
        func: Any,  # noqa: ANN401 - an operator of torch
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - whatever operators give
        """Do an operator."""
        out = func(*args, **(kwargs or {}))
        if hooks.after is not None and func._schema.name.rpartition("::")[2] in PRODUCTS:  # noqa: SLF001 - no public name for it
            out = hooks.after(out)
        if hooks.memory is not None:
            hooks.memory(out)
        return out


def watch_operators() -> Callable[[], None]:
    """Watch the operators of this thread; return what ends that, to be called in this thread."""
    watching = ExitStack()
    mode: Any = _Operators
    watching.enter_context(mode())
    return watching.close
