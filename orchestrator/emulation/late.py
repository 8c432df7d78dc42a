"""Raises what an operator fails with: at once, or at the end of the backward pass it is part of.

Autograd guards the stream of a device around each of its operators. The guard of a device made in
Python ends the process when one of them raises, so that within a backward pass nothing may.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(slots=True)
class _FirstError:
    """The first failure of a backward pass."""

    backward: int = -1
    error: Exception | None = None


_first = _FirstError()


def fail(error: Exception) -> None:
    """Raise `error`; in a backward pass return, and have that raise it in its end."""
    backward = torch._C._current_graph_task_id()  # noqa: SLF001 - no public name for it
    if backward == -1:
        raise error
    if _first.error is None or _first.backward != backward:
        _first.backward, _first.error = backward, error
        engine = torch.autograd.Variable._execution_engine  # noqa: SLF001 - as torch's own
        engine.queue_callback(_raise)


def attempt(act: Callable[[], None]) -> None:
    """Do what may raise."""
    try:
        act()
    except (RuntimeError, ValueError) as error:
        fail(error)


def _raise() -> None:
    error, _first.error = _first.error, None
    if error is not None:
        raise error
