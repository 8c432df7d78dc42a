"""What an exception tells: its kind, the line that shows it, and the user's own traceback."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from traceback import TracebackException
from types import TracebackType

from orchestrator.core.errors import OrchestratorError
from orchestrator.core.failure import FailureKind, kind_of

LONGEST_LINE = 1_000
LONGEST_DETAIL = 16_000
LONGEST_CHAIN = 10
_NOT_THE_USERS = ("orchestrator.", "importlib.", "contextlib")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an exception tells. `detail` is empty where `line` says it all."""

    kind: FailureKind
    line: str
    detail: str


def describe(error: BaseException) -> Evidence:
    """Return what `error` tells; the traceback begins at the user's first frame."""
    frames = _from_the_user(error.__traceback__)
    if frames is None and isinstance(error, OrchestratorError):
        return Evidence(_kind(error), _line(error), "")
    told = TracebackException(type(error), error, frames)
    detail = "".join(told.format()).rstrip()[-LONGEST_DETAIL:]
    return Evidence(_kind(error), _line(error), detail)


def _from_the_user(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None:
        module = str(frames.tb_frame.f_globals.get("__name__", ""))
        if not f"{module}.".startswith(_NOT_THE_USERS):
            return frames
        frames = frames.tb_next
    return None


def _line(error: BaseException) -> str:
    """Return `Type: message`; of a longer message the first line, and the one that it announces.

    Our own errors say it all in one line.
    """
    if isinstance(error, OrchestratorError):
        return str(error)[:LONGEST_LINE]
    lines = _said(error).splitlines()
    name = type(error).__name__
    heads = (i for i, line in enumerate(lines) if _type_in(line) == name)
    first = next(heads, 0)
    announced = lines[first].endswith(":") and first + 1 < len(lines)
    line = f"{lines[first]} {lines[first + 1].strip()}" if announced else lines[first]
    return line[:LONGEST_LINE]


def _type_in(line: str) -> str:
    """Return the name of the exception that a line of a traceback begins with, as it may."""
    return line.partition(":")[0].rpartition(".")[2]


def _kind(error: BaseException) -> FailureKind:
    """Return the first telling kind among the exception, its bases, and what caused it."""
    kinds = (
        kind_of(kind.__name__, _said(cause).partition(": ")[2])
        for cause in _causes(error)
        for kind in type(cause).__mro__
    )
    return next(
        (kind for kind in kinds if kind is not FailureKind.USER_CODE), FailureKind.USER_CODE
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    for _ in range(LONGEST_CHAIN):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__


def _said(error: BaseException) -> str:
    """Return type and message of the exception, even where its own `__str__` fails."""
    return "".join(TracebackException(type(error), error, None).format_exception_only())
