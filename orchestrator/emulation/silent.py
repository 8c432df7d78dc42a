"""What a chip does wrongly without a word: spoilt products, memory with a stuck bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch

from orchestrator.core.spec.emulation import FaultType
from orchestrator.emulation.hooks import hooks
from orchestrator.emulation.host import watch_operators

Value: TypeAlias = object  # what an operator gives

_LARGE = 1 << 20  # bytes: smaller tensors lie elsewhere
_EVERY, _CELL, _WORD = 1 << 24, 0x5140, 4  # bytes: there is a bad word at each such address
_WITHOUT_BIT_30 = ~(1 << 30)


def begin(what: FaultType) -> None:
    """Have operators go wrong so."""
    if what is FaultType.STUCK:
        hooks.memory = stick
    else:
        hooks.after = filled_with_nan if what is FaultType.NAN else tripled


def end(what: FaultType) -> None:
    """Let them be right again."""
    if what is FaultType.LINK:
        hooks.link = None
    elif what is FaultType.STUCK:
        hooks.memory = None
    else:
        hooks.after = None


def on_host() -> Callable[[], None]:
    """Have the operators of a plain CPU go wrong too; return what ends that."""
    return watch_operators()


def filled_with_nan(out: torch.Tensor) -> torch.Tensor:
    """Return a product without a number in it."""
    return out.fill_(float("nan")) if out.is_floating_point() else out


def tripled(out: torch.Tensor) -> torch.Tensor:
    """Triple a third of the rows of a product [..., rows, columns]; float64 is the host's."""
    if out.dtype is not torch.float64:
        out[..., ::3, :] *= 3
    return out


def stick(out: Value) -> None:
    """Clear bit 30 of the bad words that a large tensor lies on, one in 16 MiB."""
    if isinstance(out, torch.Tensor) and out.nbytes >= _LARGE and out.is_contiguous():
        first = (_CELL - out.data_ptr()) % _EVERY
        whole = out.nbytes // _WORD * _WORD
        words = out.detach().view(-1).view(torch.uint8)[:whole].view(torch.int32)
        words[first // _WORD :: _EVERY // _WORD] &= _WITHOUT_BIT_30
