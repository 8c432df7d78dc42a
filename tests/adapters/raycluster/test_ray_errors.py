"""Every exception that Ray can raise means something for an attempt."""

from __future__ import annotations

import inspect
from dataclasses import replace

import pytest
import ray.exceptions
from ray.exceptions import RayError, RayTaskError, TaskCancelledError, WorkerCrashedError

from orchestrator.adapters.raycluster import ray_errors
from orchestrator.core.failures.kinds import Failure, FailureKind
from tests.build import documented
from tests.clusters import request

EVERY = [
    found
    for _, found in inspect.getmembers(ray.exceptions, inspect.isclass)
    if issubclass(found, RayError) and found is not RayError
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_every_exception_of_ray_is_translated(error: type[Exception]) -> None:
    assert any(base in ray_errors.KINDS for base in error.__mro__)


def test_nothing_is_translated_that_ray_does_not_raise() -> None:
    assert set(ray_errors.KINDS) <= {*EVERY, ConnectionError}


def test_a_lost_worker_is_told_with_pool_node_and_rank() -> None:
    found = ray_errors.failure(
        WorkerCrashedError(), request("succeed", "s"), rank=3, node="nvidia-0"
    )

    assert (found.kind, found.pool, found.node, found.rank) == (
        *(FailureKind.WORKER_LOST, "nvidia", "nvidia-0", 3),
    )
    assert found.evidence.startswith("WorkerCrashedError: The worker died")


def test_what_a_worker_raised_past_the_protocol_is_shown_by_its_own_name() -> None:
    error = RayTaskError("f", "\x1b[36mray::f()\x1b[39m\nTraceback", ZeroDivisionError("by zero"))
    found = ray_errors.failure(error, request("succeed", "s"), rank=0, node=None)

    assert (found.kind, found.evidence) == (FailureKind.UNKNOWN, "ZeroDivisionError: by zero")
    assert not found.certain
    assert "\x1b" not in found.detail


def test_what_a_worker_raised_is_never_taken_for_ray_s_own() -> None:
    error = RayTaskError("f", "Traceback", ConnectionError("a database of the user's"))

    assert ray_errors.kind_of(type(error.as_instanceof_cause())) is FailureKind.UNKNOWN


def test_what_a_worker_lacked_is_read_from_what_it_raised() -> None:
    missing = ModuleNotFoundError("No module named 'torch_npu'", name="torch_npu")
    error = RayTaskError("f", "Traceback", missing)
    asked = replace(request("succeed", "s"), signatures=documented())

    assert ray_errors.failure(error, asked, rank=0, node=None).kind is FailureKind.SET_UP


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ray.exceptions.OutOfMemoryError, FailureKind.HOST_MEMORY),
        (ray.exceptions.ObjectStoreFullError, FailureKind.HOST_MEMORY),
        (ray.exceptions.OutOfDiskError, FailureKind.STORAGE),
        (ray.exceptions.RuntimeEnvSetupError, FailureKind.SET_UP),
    ],
)
def test_a_full_host_and_a_wrong_set_up_have_kinds_of_their_own(
    error: type[Exception], kind: FailureKind
) -> None:
    assert ray_errors.kind_of(error) is kind


@pytest.mark.parametrize(
    ("detail", "kind", "sign"),
    [
        ("killed by signal 11 SIGSEGV.", FailureKind.SOFTWARE, "signal_SIGSEGV"),
        ("exit code -6.", FailureKind.SOFTWARE, "signal_SIGABRT"),
        ("exit code 135.", FailureKind.HOST_MEMORY, "signal_SIGBUS"),
        ("exit code -4.", FailureKind.SET_UP, "signal_SIGILL"),
        ("killed by SIGKILL.", FailureKind.WORKER_LOST, ""),
        ("a connection error code 2. End of file.", FailureKind.WORKER_LOST, ""),
        ("signal 99", FailureKind.WORKER_LOST, ""),
        (
            "End of file. Some common causes include: (1) SIGKILL by OOM killer, (2) SIGSEGV",
            FailureKind.WORKER_LOST,
            "",
        ),
    ],
)
def test_how_a_process_ended_is_read_from_what_ray_knows_and_not_from_what_it_guesses(
    detail: str, kind: FailureKind, sign: str
) -> None:
    class DiedError(WorkerCrashedError):
        def __str__(self) -> str:
            return f"Worker exit type: SYSTEM_ERROR Worker exit detail: {detail}"

    lost = ray_errors.failure(DiedError(), request("succeed", "s"), rank=0, node=None)
    found = ray_errors.ended(lost)
    assert lost.kind is FailureKind.WORKER_LOST
    assert (found.kind, found.sign) == (kind, sign)


UNSEEN = "died unseen, of a signal like SIGKILL or by _exit() of native code"
HANDLED = ("*** SIGSEGV received at time=1700000000 on cpu 0 ***", "PC: @ 0x7fbf372a8eec")


@pytest.mark.parametrize(
    ("detail", "lines", "end"),
    [
        ("", ("xyzzy: fatal 0x77", ""), f"{UNSEEN}; its last line: xyzzy: fatal 0x77"),
        ("", (), UNSEEN),
        (
            "",
            ("xyzzy", "os._exit(13) ended this process"),
            "exited with code 13; its last line: xyzzy",
        ),
        ("", ("os._exit(0) ended this process",), "exited with code 0"),
        (
            "",
            ("xyzzy", "exit(77) ended this process"),
            "exited with code 77; its last line: xyzzy",
        ),
        (
            "Worker exits with an exit code 3.",
            ("xyzzy",),
            "exited with code 3; its last line: xyzzy",
        ),
        ("exit code 1. The process receives a SIGTERM.", (), "was ended by SIGTERM"),
        ("a connection error code 2. End of file.", (), UNSEEN),
        ("", ("xyzzy", *HANDLED), "was ended by SIGSEGV; its last line: xyzzy"),
        (
            "",
            ("Fatal Python error: Bus error", "", "Stack (most recent call first):"),
            "was ended by SIGBUS",
        ),
        ("", (*HANDLED, "went on"), f"{UNSEEN}; its last line: went on"),
    ],
)
def test_the_evidence_of_a_death_is_how_it_ended_and_the_last_line(
    detail: str, lines: tuple[str, ...], end: str
) -> None:
    class DiedError(WorkerCrashedError):
        def __str__(self) -> str:
            return (
                f"Worker exit type: SYSTEM_ERROR Worker exit detail: {detail}" if detail else "x"
            )

    lost = ray_errors.failure(DiedError(), request("succeed", "s"), rank=0, node="ascend-0")
    found = ray_errors.ended(lost, lines)
    assert found.evidence == f"worker 0 on ascend-0 {end}"
    assert found.detail == lost.detail


def test_a_worker_that_ray_killed_for_the_memory_of_its_node_is_told_so() -> None:
    class DiedError(WorkerCrashedError):
        def __str__(self) -> str:
            return "Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: killed"

    lost = ray_errors.failure(DiedError(), request("succeed", "s"), rank=0, node=None)
    found = ray_errors.ended(lost)
    assert (found.kind, found.certain) == (FailureKind.HOST_MEMORY, True)


def test_a_cancelled_task_is_cancelled() -> None:
    assert ray_errors.kind_of(TaskCancelledError) is FailureKind.CANCELLED


def test_a_lost_node_is_named() -> None:
    lost = Failure(kind=FailureKind.WORKER_LOST, evidence="it died", node="ascend-0")

    assert ray_errors.with_node(lost).kind is FailureKind.NODE_LOST
    assert ray_errors.with_node(lost).evidence == "node 'ascend-0' is gone (it died)"
