"""Sees the matrix products of a plain CPU device, while a fault waits for one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from orchestrator.emulation.hooks import hooks
from orchestrator.emulation.kernels import PRODUCTS


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch leaves it untyped
    """Shows the result of each matrix product to the hook that waits for it."""

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
            return hooks.after(out)
        return out


def watch_products() -> Callable[[], None]:
    """Watch the operators of this thread; return what ends that, to be called in this thread."""
    watching = ExitStack()
    mode: Any = _Products
    watching.enter_context(mode())
    return watching.close
