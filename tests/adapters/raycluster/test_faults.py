"""Every exception that Ray can raise means something for an attempt."""

from __future__ import annotations

import inspect

import pytest
import ray.exceptions
from ray.exceptions import RayError, RayTaskError, TaskCancelledError, WorkerCrashedError

from orchestrator.adapters.raycluster import faults
from orchestrator.core.failure import Failure, FailureKind
from tests.clusters import request

EVERY = [
    found
    for _, found in inspect.getmembers(ray.exceptions, inspect.isclass)
    if issubclass(found, RayError) and found is not RayError
]


@pytest.mark.parametrize("error", EVERY, ids=lambda error: error.__name__)
def test_every_exception_of_ray_is_translated(error: type[Exception]) -> None:
    assert any(base in faults.KINDS for base in error.__mro__)


def test_nothing_is_translated_that_ray_does_not_raise() -> None:
    assert set(faults.KINDS) <= {*EVERY, ConnectionError}


def test_a_lost_worker_is_told_with_pool_node_and_rank() -> None:
    found = faults.failure(WorkerCrashedError(), request("succeed", "s"), rank=3, node="nvidia-0")

    assert (found.kind, found.pool, found.node, found.rank) == (
        *(FailureKind.WORKER_LOST, "nvidia", "nvidia-0", 3),
    )
    assert found.evidence.startswith("WorkerCrashedError: The worker died")


def test_what_a_worker_raised_is_shown_by_its_own_name() -> None:
    error = RayTaskError("f", "\x1b[36mray::f()\x1b[39m\nTraceback", ZeroDivisionError("by zero"))
    found = faults.failure(error, request("succeed", "s"), rank=0, node=None)

    assert (found.kind, found.evidence) == (FailureKind.USER_CODE, "ZeroDivisionError: by zero")
    assert "\x1b" not in found.detail


def test_what_a_worker_raised_is_never_taken_for_ray_s_own() -> None:
    error = RayTaskError("f", "Traceback", ConnectionError("a database of the user's"))

    assert faults.kind_of(type(error.as_instanceof_cause())) is FailureKind.USER_CODE


def test_a_cancelled_task_is_cancelled() -> None:
    assert faults.kind_of(TaskCancelledError) is FailureKind.CANCELLED


def test_a_lost_node_is_named() -> None:
    lost = Failure(kind=FailureKind.WORKER_LOST, evidence="it died", node="ascend-0")

    assert faults.with_node(lost).kind is FailureKind.NODE_LOST
    assert faults.with_node(lost).evidence == "node 'ascend-0' is gone (it died)"
