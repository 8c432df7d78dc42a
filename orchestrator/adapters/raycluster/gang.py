"""The worker processes of one attempt: a task for one worker, actors for several.

A worker is a stream: a remote generator of batches of messages. Ray itself never retries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from orchestrator.adapters.raycluster import faults
from orchestrator.ports import AttemptRequest, Failed, Message, Placed, Succeeded, Worker

Remote: TypeAlias = Any  # Ray's handles and generators carry no useful types
Group: TypeAlias = Any


def bundle(request: AttemptRequest) -> dict[str, float]:
    """Return the resources that one worker of `request` holds."""
    held = {"CPU": request.needs.cpus}
    resource = request.pool.accelerator.resource
    if resource and request.needs.devices:
        held[resource] = request.needs.devices
    return held


def run_task(
    worker: Worker, request: AttemptRequest, rank: int, rendezvous: str | None
) -> Iterator[Sequence[Message]]:
    """Say where this worker is, then what `worker` says. Runs in a worker process."""
    from orchestrator.adapters.raycluster import visible

    node = visible.prepare(request)
    yield (Placed((node,)),)
    yield from worker(request, rank=rank, rendezvous=rendezvous)


class Member:
    """A worker of a gang: an actor, so that it is there before the gang's address is known."""

    def address(self) -> str:
        """Return `HOST:PORT` where rank 0 can listen for the others."""
        from orchestrator.adapters.raycluster import visible

        return visible.free_address()

    def run(
        self, worker: Worker, request: AttemptRequest, rank: int, rendezvous: str
    ) -> Iterator[Sequence[Message]]:
        """Run as worker `rank`."""
        yield from run_task(worker, request, rank, rendezvous)


class Gang:
    """The workers of an attempt whose placement group is there."""

    def __init__(self, worker: Worker, request: AttemptRequest, group: Group) -> None:
        """Ask for the processes; returns at once."""
        self._worker = worker
        self._request = request
        self._group = group
        self._actors: list[Remote] = []
        self._address: Remote = None
        self._streams: dict[int, Remote] = {}
        self._nodes: dict[int, str] = {}
        self._told_placed = False
        self._success: Succeeded | None = None
        if request.needs.workers == 1:
            self._streams[0] = self._task()
        else:
            self._actors = [self._actor(rank) for rank in range(request.needs.workers)]
            self._address = self._actors[0].address.remote()

    def poll(self) -> list[Message]:
        """Return what the workers said; the last of all is one outcome."""
        if self._address is not None:
            failed = self._meet()
            if failed:
                return [failed]
        said: list[Message] = []
        for rank in sorted(self._streams):
            for message in self._drain(rank):
                said.extend(self._heard(rank, message))
                if isinstance(message, Failed):
                    return said
        if not self._streams and self._address is None and self._success is not None:
            said.append(self._success)
        return said

    def end(self) -> None:
        """End every process. Safe to call twice."""
        for actor in self._actors:
            ray.kill(actor)
        if not self._actors:
            for stream in self._streams.values():
                ray.cancel(stream, force=True)
        self._actors, self._streams = [], {}

    # --- processes -----------------------------------------------------------------------------

    def _options(self, rank: int) -> dict[str, Any]:
        held = bundle(self._request)
        cpus, gpus = held.pop("CPU"), held.pop("GPU", 0)
        return {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "resources": held,
            "scheduling_strategy": PlacementGroupSchedulingStrategy(self._group, rank),
        }

    def _task(self) -> Remote:
        task = ray.remote(run_task).options(
            num_returns="streaming", max_retries=0, name=self._request.key, **self._options(0)
        )
        return task.remote(self._worker, self._request, 0, None)

    def _actor(self, rank: int) -> Remote:
        made = ray.remote(Member).options(
            max_restarts=0, max_task_retries=0, **self._options(rank)
        )
        return made.remote()

    def _meet(self) -> Failed | None:
        """Start the workers once rank 0 has told its address."""
        ready, _ = ray.wait([self._address], timeout=0)
        if not ready:
            return None
        try:
            address = ray.get(self._address)
        except faults.ERRORS as error:
            return Failed(faults.failure(error, self._request, rank=0, node=None))
        self._address = None
        for rank, actor in enumerate(self._actors):
            run = actor.run.options(num_returns="streaming")
            self._streams[rank] = run.remote(self._worker, self._request, rank, address)
        return None

    # --- messages ------------------------------------------------------------------------------

    def _drain(self, rank: int) -> Iterator[Message]:
        """Yield what worker `rank` has said, without waiting for more."""
        stream = self._streams[rank]
        while ray.wait([stream], timeout=0, fetch_local=False)[0]:
            try:
                yield from ray.get(next(stream))
            except StopIteration:
                yield from self._ended(rank)
                return
            except faults.ERRORS as error:
                node = self._nodes.get(rank)
                yield Failed(faults.failure(error, self._request, rank=rank, node=node))
                return

    def _ended(self, rank: int) -> Iterator[Message]:
        del self._streams[rank]
        if rank == 0 and self._success is None:
            yield Failed(faults.silent(self._request, rank, self._nodes.get(rank)))

    def _heard(self, rank: int, message: Message) -> Iterator[Message]:
        """Keep the success until all have ended, and the placement until all are placed."""
        if isinstance(message, Succeeded):
            if rank == 0:
                self._success = message
        elif isinstance(message, Placed):
            self._nodes[rank] = message.nodes[0]
            if len(self._nodes) == self._request.needs.workers:
                yield Placed(tuple(self._nodes[r] for r in sorted(self._nodes)))
        elif isinstance(message, Failed):
            yield Failed(faults.located(message.failure, self._nodes.get(rank)))
        else:
            yield message
