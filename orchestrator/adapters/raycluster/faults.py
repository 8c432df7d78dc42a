"""Ray's exceptions, translated once: what a lost worker, actor or node means for an attempt."""

from __future__ import annotations

from dataclasses import replace

from ray import exceptions

from orchestrator.core.failure import Failure, FailureKind
from orchestrator.ports import AttemptRequest

ERRORS = (exceptions.RayError,)

_KINDS: tuple[tuple[tuple[type[Exception], ...], FailureKind], ...] = (
    ((exceptions.TaskCancelledError,), FailureKind.CANCELLED),
    ((exceptions.OutOfMemoryError,), FailureKind.OUT_OF_MEMORY),
    (
        (
            exceptions.NodeDiedError,
            exceptions.OwnerDiedError,
            exceptions.ActorUnavailableError,
            exceptions.LocalRayletDiedError,
        ),
        FailureKind.NODE_LOST,
    ),
    ((exceptions.WorkerCrashedError, exceptions.ActorDiedError), FailureKind.WORKER_LOST),
    (
        (exceptions.ActorUnschedulableError, exceptions.TaskUnschedulableError),
        FailureKind.PLACEMENT,
    ),
)
_NODE_SIGNS = ("node died", "node has died", "raylet died", "node was terminated", "node failure")


def failure(error: Exception, request: AttemptRequest, *, rank: int, node: str | None) -> Failure:
    """Return what `error`, which Ray raised for worker `rank`, means for the attempt."""
    text = str(error).strip()
    return Failure(
        kind=kind_of(error),
        evidence=f"{type(error).__name__}: {_first_line(text)}",
        detail=text,
        pool=request.pool.name,
        node=node,
        rank=rank,
    )


def kind_of(error: Exception) -> FailureKind:
    """Return the kind of failure that a Ray exception tells of."""
    if isinstance(error, exceptions.ActorDiedError | exceptions.WorkerCrashedError) and any(
        sign in str(error).lower() for sign in _NODE_SIGNS
    ):
        return FailureKind.NODE_LOST
    for types, kind in _KINDS:
        if isinstance(error, types):
            return kind
    return FailureKind.SOFTWARE


def silent(request: AttemptRequest, rank: int, node: str | None) -> Failure:
    """Return the failure of a worker that ended without an outcome."""
    evidence = f"worker {rank} ended without an outcome"
    return Failure(
        kind=FailureKind.SOFTWARE, evidence=evidence, pool=request.pool.name, node=node, rank=rank
    )


def located(found: Failure, node: str | None) -> Failure:
    """Return `found` with the node on which it showed."""
    return found if found.node else replace(found, node=node)


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "no reason given"
