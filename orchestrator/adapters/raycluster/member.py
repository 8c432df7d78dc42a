"""What runs in the processes of an attempt: one worker, as a task or as an actor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, TypeAlias

import ray
from ray import cloudpickle

from orchestrator.adapters.raycluster import exit_codes, last_words, process, this_worker
from orchestrator.adapters.raycluster.placement import Placement
from orchestrator.adapters.raycluster.process import WorkerProcess
from orchestrator.adapters.raycluster.ranking import WorkerPlace
from orchestrator.adapters.rayqueries import cluster_tables
from orchestrator.core.errors import ClusterError, SoftwareError
from orchestrator.core.failures.kinds import Failure, FailureKind, of_versions
from orchestrator.messages import AttemptRequest, Failed, Message
from orchestrator.node import node_identity, rendezvous_port, software
from orchestrator.node.software import Sealed
from orchestrator.ports import Warm, Worker
from orchestrator.worker import native_output, rank_environment
from orchestrator.worker.termination import told_by

# The thread of a job that hangs, or that a newer attempt has replaced, may never end by itself.
_MAY_RUN_ON = frozenset({FailureKind.HANG, FailureKind.CANCELLED})
Remote: TypeAlias = Any  # Ray's handles and generators carry no useful types


def sealed(does: Worker | Warm, request: AttemptRequest) -> Sealed:
    """Return what a process is sent that is to do `does` for `request`."""
    content = cloudpickle.dumps((does, request))
    return software.sealed(content, request.packages, request.shipped)


def _opened(parcel: Sealed) -> Any:  # noqa: ANN401 - what was sealed
    return software.opened(
        parcel, lambda: cluster_tables.names().get(this_worker.node(), this_worker.node())
    )


def run_task(
    parcel: Sealed, rank: int, rendezvous: str | None
) -> Iterator[Sequence[Message | WorkerProcess]]:
    """Say which process this worker is, then what the sealed worker says. Runs in that process."""
    last_words.forget()
    try:
        worker, request = _opened(parcel)
    except SoftwareError as error:
        yield process.here(this_worker.node(), software.running()), Failed(of_versions(str(error)))
        return
    try:
        node = this_worker.prepare(request)
    except ClusterError as error:
        pool = request.pool.name
        yield (Failed(Failure(kind=FailureKind.SET_UP, evidence=str(error), pool=pool)),)
        return
    runs = software.running(request.pool.accelerator.torch_package, request.shipped)
    me = process.here(node, runs)
    yield (me,)
    strange = node_identity.objection(
        request.pool, request.measured, lambda: cluster_tables.names().get(node, node)
    )
    if strange:
        kind, pool = FailureKind.UNQUALIFIED, request.pool.name
        yield (Failed(Failure(kind=kind, evidence=strange, pool=pool)),)
        return
    last: Sequence[Message] = ()
    asked = False
    try:
        with (
            process.noted(request.key, rank, me),
            rank_environment.applied(rank_environment.variables(request, rank, rendezvous)),
            native_output.followed(request.secrets.values()),  # one attempt at a time
            exit_codes.announced(),
            told_by(_asked_to_end),
            closing(worker(request, rank=rank, rendezvous=rendezvous)) as messages,
        ):
            for batch in messages:
                last_words.keep(batch, request.secrets.values())
                yield batch
                last = batch
            asked = _asked_to_end()
    except (KeyboardInterrupt, GeneratorExit):  # so Ray asks a task, and an actor that speaks
        asked = True
    if asked:
        this_worker.end()
    if any(
        isinstance(message, Failed) and message.failure.kind in _MAY_RUN_ON for message in last
    ):
        this_worker.end_with_its_threads()


def _asked_to_end() -> bool:
    """Return whether Ray was told to cancel this worker."""
    return bool(ray.get_runtime_context().is_canceled())


class Member:
    """A worker of a gang: an actor, so that it is there before the gang's address is known."""

    def warm(self, parcel: Sealed) -> None:
        """Import what an attempt like the sealed request needs."""
        warm, request = _opened(parcel)
        this_worker.prepare(request)
        with rank_environment.applied({**request.env, **request.secrets}):
            warm(request)

    def ping(self) -> None:
        """Show that this process lives."""

    def place(self, parcel: Sealed) -> WorkerPlace:
        """Return where this process is, and what it runs."""
        try:
            _, request = _opened(parcel)
        except SoftwareError as error:
            return WorkerPlace(this_worker.node(), unfit=str(error))
        return this_worker.place(request)

    def address(self) -> str:
        """Return `HOST:PORT` where rank 0 listens for the others."""
        return this_worker.open_address()

    def run(
        self, parcel: Sealed, rank: int, rendezvous: str | None
    ) -> Iterator[Sequence[Message | WorkerProcess]]:
        """Run as worker `rank`."""
        try:
            yield from run_task(parcel, rank, rendezvous)
        finally:
            rendezvous_port.close(rendezvous or "")


def muster(place: Placement) -> list[Remote]:
    """Return the actors of a gang, sent to `place`, by rank."""
    member = ray.remote(max_restarts=0, max_task_retries=0)(Member)
    workers = range(place.request.needs.workers)
    return [member.options(**place.options(rank)).remote() for rank in workers]
