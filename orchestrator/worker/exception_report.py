"""What an exception tells: its kind, the line that shows it, and the user's own traceback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from traceback import TracebackException
from types import TracebackType

from orchestrator.core.errors import OrchestratorError
from orchestrator.core.failures.exceptions import BY_JOB, Judgement, Raised, judge
from orchestrator.core.failures.kinds import OF_A_JOB, FailureKind
from orchestrator.core.failures.signatures import Signature, matcher
from orchestrator.job import KnownFailureError, ParityError

LONGEST_LINE = 1_000
LONGEST_DETAIL = 16_000
LONGEST_MESSAGE = 16_000
LONGEST_CHAIN = 10
_NOT_THE_USERS = ("orchestrator.", "importlib.", "contextlib")
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python", "<frozen ")


@dataclass(frozen=True, slots=True)
class ExceptionReport:
    """What an exception tells. `detail` is empty where `line` says it all.

    `certain` and `sign` are those of a `Failure`.
    """

    kind: FailureKind
    line: str
    detail: str
    certain: bool = True
    sign: str = ""


def describe(error: BaseException, signatures: tuple[Signature, ...] = ()) -> ExceptionReport:
    """Return what `error` tells; the traceback begins at the user's first frame."""
    if isinstance(error, KnownFailureError) and error.kind in OF_A_JOB:
        said = _typed_message(error).partition(": ")[2].strip()
        known = Judgement(FailureKind(error.kind), certain=True, sign=BY_JOB)
        return _evidence(known, said[:LONGEST_LINE], "")
    judgement = judge(tuple(_chain(error)), matcher(signatures))
    if isinstance(error, ParityError):
        said = _typed_message(error).partition(": ")[2].strip()
        return _evidence(judgement, said[:LONGEST_LINE], "")
    frames = _from_the_user(error.__traceback__)
    if frames is None and isinstance(error, OrchestratorError):
        return _evidence(judgement, _line(error), "")
    traceback = TracebackException(type(error), error, frames)
    detail = "".join(traceback.format()).rstrip()[-LONGEST_DETAIL:]
    return _evidence(judgement, _line_of(judgement, error), detail)


def _evidence(judgement: Judgement, line: str, detail: str) -> ExceptionReport:
    return ExceptionReport(judgement.kind, line, detail, judgement.certain, judgement.sign)


def _line_of(judgement: Judgement, error: BaseException) -> str:
    """Return the line below the first of the message that a signature knows, as it was written.

    Drivers begin with where in their own source they are, and come to the code further down.
    """
    below = (line.strip() for line in _typed_message(error).splitlines()[1:])
    return (
        judgement.line[:LONGEST_LINE]
        if judgement.line and judgement.line in below
        else _line(error)
    )


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
    lines = _typed_message(error).splitlines()
    name = type(error).__name__
    heads = (i for i, line in enumerate(lines) if _type_in(line) == name)
    first = next(heads, 0)
    announced = lines[first].endswith(":") and first + 1 < len(lines)
    line = f"{lines[first]} {lines[first + 1].strip()}" if announced else lines[first]
    return line[:LONGEST_LINE]


def _type_in(line: str) -> str:
    """Return the name of the exception that a line of a traceback begins with, as it may."""
    return line.partition(":")[0].rpartition(".")[2]


def _chain(error: BaseException) -> Iterator[Raised]:
    """Yield what `error` is, then what caused it, then what was handled when it was raised."""
    cause: BaseException | None = error
    explicit = True
    for _ in range(LONGEST_CHAIN):
        if cause is None:
            return
        yield _raised(cause, explicit=explicit)
        if isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
            continue
        explicit = explicit and (cause.__cause__ is not None)
        following = cause.__cause__
        if following is None and not cause.__suppress_context__:
            following = cause.__context__
        cause = following


def _raised(error: BaseException, *, explicit: bool) -> Raised:
    number = getattr(error, "errno", None)
    return Raised(
        types=tuple(_name(base) for base in type(error).__mro__ if base is not object),
        message=_message(error)[:LONGEST_MESSAGE],
        number=number if isinstance(number, int) else None,
        library=_of_a_library(error.__traceback__) or _is_a_librarys(type(error)),
        explicit=explicit,
    )


def _name(base: type) -> str:
    module = base.__module__
    return base.__qualname__ if module in {"builtins", "__main__"} else f"{module}.{base.__name__}"


def _of_a_library(frames: TracebackType | None) -> bool:
    """Whether the innermost frame is that of a library; native code has no frame of its own."""
    if frames is None:
        return False
    while frames.tb_next is not None:
        frames = frames.tb_next
    return any(part in frames.tb_frame.f_code.co_filename for part in _LIBRARIES)


def _is_a_librarys(kind: type) -> bool:
    """Whether a library defines this type of exception."""
    module = sys.modules.get(kind.__module__)
    file = getattr(module, "__file__", None) or ""
    return any(part in file for part in _LIBRARIES)


def _message(error: BaseException) -> str:
    """Return what `error` says, without its type, even where its own `__str__` fails."""
    return _typed_message(error).partition(": ")[2].rstrip()


def _typed_message(error: BaseException) -> str:
    """Return type and message of the exception, even where its own `__str__` fails."""
    return "".join(TracebackException(type(error), error, None).format_exception_only())
