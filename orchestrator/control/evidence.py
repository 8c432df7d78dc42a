"""What an exception tells: its kind, the line that shows it, and the user's own traceback."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from traceback import TracebackException
from types import MappingProxyType, TracebackType

from orchestrator.core.classify import Signature, kind_of, match
from orchestrator.core.errors import ArtifactError, OrchestratorError, StorageError
from orchestrator.core.failure import FailureKind
from orchestrator.job import ParityError

LONGEST_LINE = 1_000
LONGEST_DETAIL = 16_000
LONGEST_CHAIN = 10
# What these are needs no signature.
_OF_TYPES: Mapping[type[BaseException], FailureKind] = MappingProxyType(
    {
        StorageError: FailureKind.STORAGE,
        ArtifactError: FailureKind.DATA,
        ParityError: FailureKind.PARITY,
        MemoryError: FailureKind.OUT_OF_MEMORY,
        FloatingPointError: FailureKind.NUMERICAL_DIVERGENCE,
    }
)
_NOT_THE_USERS = ("orchestrator.", "importlib.", "contextlib")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What an exception tells. `detail` is empty where `line` says it all."""

    kind: FailureKind
    line: str
    detail: str


def describe(error: BaseException, signatures: Sequence[Signature] = ()) -> Evidence:
    """Return what `error` tells; the traceback begins at the user's first frame."""
    if isinstance(error, ParityError):
        return Evidence(
            FailureKind.PARITY, _said(error).partition(": ")[2].strip()[:LONGEST_LINE], ""
        )
    frames = _from_the_user(error.__traceback__)
    if frames is None and isinstance(error, OrchestratorError):
        return Evidence(_kind(error, signatures), _line(error), "")
    told = TracebackException(type(error), error, frames)
    detail = "".join(told.format()).rstrip()[-LONGEST_DETAIL:]
    line = _line_with_code(error, signatures) or _line(error)
    return Evidence(_kind(error, signatures), line, detail)


def _line_with_code(error: BaseException, signatures: Sequence[Signature]) -> str | None:
    """Return the line below the first of the message that a signature knows, as it was written.

    Drivers begin with where in their own source they are, and come to the code further down.
    """
    below = (line.strip() for line in _said(error).splitlines()[1:])
    found = next((line for line in below if match(line, signatures)), None)
    return None if found is None else found[:LONGEST_LINE]


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


def _kind(error: BaseException, signatures: Sequence[Signature]) -> FailureKind:
    """Return the first telling kind among the exception, its bases, and what caused it."""
    kinds = (
        kind
        for cause in _causes(error)
        for kind in (_by_type(cause), *_by_signature(cause, signatures))
    )
    return next((kind for kind in kinds if kind), FailureKind.USER_CODE)


def _by_type(error: BaseException) -> FailureKind | None:
    return next((kind for base, kind in _OF_TYPES.items() if isinstance(error, base)), None)


def _by_signature(
    error: BaseException, signatures: Sequence[Signature]
) -> Iterator[FailureKind | None]:
    message = _said(error).partition(": ")[2]
    for base in type(error).__mro__:
        found = kind_of(f"{base.__name__}: {message}", signatures)
        yield None if found is FailureKind.USER_CODE else found


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
