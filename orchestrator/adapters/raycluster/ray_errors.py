"""Ray's exceptions, translated once: what a lost worker, actor or node means for an attempt."""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from ray import exceptions as ray_errors

from orchestrator.adapters.raycluster import exit_codes
from orchestrator.core.failures.exceptions import BY_SIGNAL
from orchestrator.core.failures.kinds import Failure, FailureKind, of_versions
from orchestrator.core.failures.lines import last_words, of_a_handler, of_a_stack
from orchestrator.messages import AttemptRequest
from orchestrator.node import software
from orchestrator.worker.exception_report import LONGEST_LINE, describe

ERRORS = (ray_errors.RayError, ConnectionError)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# How the process of a worker ended, as far as Ray knows: up to where it begins to guess.
_EXIT = re.compile(
    r"Worker exit type: (\w+),? Worker exit detail: (.+?)(?= Some common causes| There are|$)",
    re.MULTILINE,
)
_K = FailureKind
KINDS: Mapping[type[Exception], FailureKind] = MappingProxyType(
    {
        # the process or its node is gone
        ray_errors.WorkerCrashedError: _K.WORKER_LOST,
        ray_errors.RayActorError: _K.WORKER_LOST,
        ray_errors.ObjectLostError: _K.WORKER_LOST,
        ray_errors.PlasmaObjectNotAvailable: _K.WORKER_LOST,
        ray_errors.AsyncioActorExit: _K.WORKER_LOST,
        ray_errors.ActorHandleNotFoundError: _K.WORKER_LOST,
        ray_errors.NodeDiedError: _K.NODE_LOST,
        ray_errors.LocalRayletDiedError: _K.NODE_LOST,
        ray_errors.RpcError: _K.NODE_LOST,
        ConnectionError: _K.NODE_LOST,
        # the host is full, or too slow
        ray_errors.OutOfMemoryError: _K.HOST_MEMORY,
        ray_errors.ObjectStoreFullError: _K.HOST_MEMORY,
        ray_errors.OutOfDiskError: _K.STORAGE,
        ray_errors.GetTimeoutError: _K.HANG,
        ray_errors.RayChannelTimeoutError: _K.HANG,
        # its place was refused or taken away
        ray_errors.TaskUnschedulableError: _K.PLACEMENT,
        ray_errors.ActorUnschedulableError: _K.PLACEMENT,
        ray_errors.TaskPlacementGroupRemoved: _K.PLACEMENT,
        ray_errors.ActorPlacementGroupRemoved: _K.PLACEMENT,
        ray_errors.TaskCancelledError: _K.CANCELLED,
        # what was raised past the protocol: the job's own errors never come this way
        ray_errors.RayTaskError: _K.UNKNOWN,
        ray_errors.UserCodeException: _K.UNKNOWN,
        ray_errors.CrossLanguageError: _K.UNKNOWN,
        ray_errors.UnserializableException: _K.UNKNOWN,
        ray_errors.OufOfBandObjectRefSerializationException: _K.UNKNOWN,
        # Ray, or how it is used and set up
        ray_errors.RaySystemError: _K.SOFTWARE,
        ray_errors.AuthenticationError: _K.SET_UP,
        ray_errors.RuntimeEnvSetupError: _K.SET_UP,
        ray_errors.PendingCallsLimitExceeded: _K.SOFTWARE,
        ray_errors.ObjectRefStreamEndOfStreamError: _K.SOFTWARE,
        ray_errors.ActorAlreadyExistsError: _K.SOFTWARE,
    }
)


# What the signal that ended a process makes likely; any other says no more than that it is gone.
_SIGNALS: Mapping[signal.Signals, FailureKind] = MappingProxyType(
    {
        signal.SIGBUS: _K.HOST_MEMORY,  # shared memory that is full
        signal.SIGSEGV: _K.SOFTWARE,
        signal.SIGABRT: _K.SOFTWARE,
        signal.SIGFPE: _K.SOFTWARE,
        signal.SIGILL: _K.SET_UP,  # built for another CPU
    }
)
_SIGNAL = re.compile(
    r"\b(SIG[A-Z]{3,4})\b|\bsignal:? (\d+)|\bexit code:? -(\d+)|\bexit code:? 1([3-9]\d)\b"
)
_SHELL = 28  # `128 + n` of a shell, without its first digit
_CODE = re.compile(r"\bexit code:? (\d+)")
# As Python's own handler of signals calls them.
_NAMES: Mapping[str, str] = MappingProxyType(
    {
        "error: Aborted": "SIGABRT",
        "error: Segmentation": "SIGSEGV",
        "error: Bus": "SIGBUS",
        "error: Illegal": "SIGILL",
        "error: Floating": "SIGFPE",
    }
)
# What leaves neither a signal nor a code behind that anybody sees but the parent.
UNSEEN = "died unseen, of a signal like SIGKILL or by _exit() of native code"
_IP = re.compile(r"\bip=([\w.:]+)")  # of the node, by Ray
# Of what was to be called there: by Ray where it is not, by Python where it takes other arguments.
_UNLIKE = re.compile(r"failed to import on the worker|^(?:run_task|Member\.\w+)\(\) ")
_UNSURE = frozenset({_K.UNKNOWN, _K.SOFTWARE})


def failure(error: Exception, request: AttemptRequest, *, rank: int, node: str | None) -> Failure:
    """Return what `error`, which Ray raised for worker `rank`, means for the attempt."""
    kind = kind_of(type(error))
    translated = Failure(
        kind=kind,
        evidence=_evidence(error),
        detail=_COLOUR.sub("", str(error)).strip(),
        pool=request.pool.name,
        node=node,
        rank=rank,
        certain=kind not in _UNSURE,
    )
    if isinstance(error, ray_errors.RayTaskError):
        return _past_the_protocol(translated, error, request)
    return translated


def _past_the_protocol(
    failure: Failure, error: ray_errors.RayTaskError, request: AttemptRequest
) -> Failure:
    """Return `found` as what its words show; that it is the job's own code they can't."""
    cause = getattr(error, "cause", None)
    if not isinstance(cause, BaseException):
        return failure
    if _UNLIKE.search(str(cause)):
        return replace(of_versions(_unfit(error), failure.node, failure.pool), rank=failure.rank)
    described = describe(cause, request.signatures)
    if described.kind is _K.USER_CODE:
        return failure
    return replace(failure, kind=described.kind, certain=described.certain, sign=described.sign)


def _unfit(error: ray_errors.RayTaskError) -> str:
    """Return that a node has not what it was to call: another orchestrator, or none."""
    where, ours = _IP.search(str(error)), software.package(software.PRODUCT)
    why = last_words(str(error.cause).strip().splitlines())
    node = f"node at {where[1]!r}" if where else "a node"
    lacks = f"{node} has not the orchestrator {ours} of its controller: {why}"
    return f"{lacks}; install the same there"


def ended(failure: Failure, lines: Sequence[str] = ()) -> Failure:
    """Return `found`, a lost worker, as what Ray and its last `lines` tell of how it ended."""
    ray_exit = _EXIT.search(failure.detail)
    if ray_exit and ray_exit[1] == "NODE_OUT_OF_MEMORY":
        return replace(failure, kind=_K.HOST_MEMORY)
    known = ray_exit[2] if ray_exit else ""
    number = _signal(known) or _handled(lines)
    failure = replace(failure, evidence=_end(failure, number, _code(known, lines), lines))
    if number is None or number not in _SIGNALS:
        return failure
    sign = f"{BY_SIGNAL}{number.name}"
    return replace(failure, kind=_SIGNALS[number], certain=False, sign=sign)


def _end(
    failure: Failure, number: signal.Signals | None, code: int | None, lines: Sequence[str]
) -> str:
    """Return, as one line, how the worker ended, and what it said last."""
    where = f" on {failure.node}" if failure.node else ""
    how = UNSEEN if code is None else f"exited with code {code}"
    how = f"was ended by {number.name}" if number else how
    words = last_words([line for line in lines if exit_codes.code(line) is None])[:LONGEST_LINE]
    return f"worker {failure.rank}{where} {how}{f'; its last line: {words}' if words else ''}"


def _code(detail: str, lines: Sequence[str]) -> int | None:
    left = (code for line in reversed(lines) if (code := exit_codes.code(line)) is not None)
    match = _CODE.search(detail)
    return int(match[1]) if match else next(left, None)


def _handled(lines: Sequence[str]) -> signal.Signals | None:
    """Return the signal that a handler wrote of at the end of `lines`."""
    for line in reversed(lines):
        if not of_a_handler(line) and not of_a_stack(line):
            return None
        name = next((name for words, name in _NAMES.items() if words in line), line)
        if of_a_handler(line) and (number := _signal(name)):
            return number
    return None


def _signal(detail: str) -> signal.Signals | None:
    match = _SIGNAL.search(detail)
    if match is None:
        return None
    name, number, negative, shell = match.groups()
    try:
        if name:
            return signal.Signals[name]
        return signal.Signals(int(shell) - _SHELL if shell else int(number or negative))
    except (KeyError, ValueError):  # no signal of this system
        return None


def kind_of(error: type[Exception]) -> FailureKind:
    """Return the kind of failure that exceptions of type `error` tell of."""
    return next((KINDS[base] for base in error.__mro__ if base in KINDS), _K.SOFTWARE)


def with_node(failure: Failure) -> Failure:
    """Return `found` as the loss of the whole node."""
    evidence = f"node {failure.node!r} is gone ({failure.evidence})"
    return replace(failure, kind=_K.NODE_LOST, evidence=evidence)


def silent(request: AttemptRequest, rank: int, node: str | None, seconds: float) -> Failure:
    """Return the failure of a worker whose process, or whose node, gives no sign of life."""
    evidence = f"worker {rank} on node {node!r} is silent for {seconds:.0f} s"
    return Failure(kind=_K.HANG, evidence=evidence, pool=request.pool.name, node=node, rank=rank)


def without_outcome(request: AttemptRequest, rank: int, node: str | None) -> Failure:
    """Return the failure of a worker that ended without an outcome."""
    evidence = f"worker {rank} ended without an outcome"
    return Failure(
        kind=_K.SOFTWARE,
        evidence=evidence,
        pool=request.pool.name,
        node=node,
        rank=rank,
        certain=False,
    )


def located(failure: Failure, node: str | None, rank: int, step: int | None) -> Failure:
    """Return `found` with the node, the worker and the step at which it showed."""
    return replace(
        failure,
        node=failure.node or node,
        rank=rank if failure.rank is None else failure.rank,
        step=step if failure.step is None else failure.step,
    )


def _evidence(error: Exception) -> str:
    cause = getattr(error, "cause", None) if isinstance(error, ray_errors.RayTaskError) else None
    text = _COLOUR.sub("", str(cause or error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    exits = _EXIT.search(text)
    line = " ".join(exits.groups()) if exits else (lines or ["no reason given"])[0]
    return f"{type(cause or error).__name__}: {line}"
