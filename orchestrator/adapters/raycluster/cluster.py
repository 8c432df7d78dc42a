"""The port `Cluster` on Ray: each attempt a place on its pool, and the workers in it.

Rules: placement goes by label and resource; what the declared pool can never hold is told at once,
not waited for; when an attempt ends, however it does, its processes and its placement are gone,
also those that another controller started and that nobody hears any more;
nothing is asked of Ray, and nothing ended, while its head does not answer.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial

from orchestrator.adapters.raycluster import access, ending, nodes, process, ray_errors, stacks
from orchestrator.adapters.raycluster.gang import Gang
from orchestrator.adapters.raycluster.head import PATIENCE, Head
from orchestrator.adapters.raycluster.member import Remote
from orchestrator.adapters.raycluster.node_report import NodeChecks, reports
from orchestrator.adapters.raycluster.nodes import ClusterNodes
from orchestrator.adapters.raycluster.placement import Placement
from orchestrator.adapters.raycluster.standby import StandbyGangs
from orchestrator.adapters.rayqueries.cluster_tables import Node
from orchestrator.adapters.rayqueries.gcs import HeadSilentError
from orchestrator.core.errors import ClusterError
from orchestrator.core.failures.classify import LOSSES
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import (
    AttemptRequest,
    Failed,
    Message,
    NodeReport,
    PoolStatus,
    Succeeded,
)
from orchestrator.ports import Warm, Worker


def _nothing_ahead(request: AttemptRequest) -> None:
    """Import nothing before there is work."""


class RayCluster:
    """Attempts on the Ray cluster at `address`, each worker running `worker`."""

    def __init__(
        self,
        address: str,
        worker: Worker,
        patience: float = PATIENCE,
        *,
        warm: Warm = _nothing_ahead,
    ) -> None:
        """Connect; wait for a silent head for `patience` seconds before it counts as gone.

        Workers that stand by do what `warm` does.

        Raises:
            ClusterError: Nothing answers at `address`, or it doesn't let us in.
        """
        self._ours = access.connect(address, patience)
        self._head = Head(address, patience, session=access.session())
        self._worker = worker
        self._attempts: dict[str, _RayAttempt] = {}
        self._ending: list[Callable[[], None]] = []  # as soon as the head is back
        self._leaving: dict[_RayAttempt, threading.Thread] = {}
        self._nodes = ClusterNodes()
        self._standby = StandbyGangs(warm, self._nodes)

    def start(self, request: AttemptRequest) -> None:
        """Ask for an attempt."""
        self._attempts[request.key] = _RayAttempt(request, self._worker)
        if self._head.answers:
            self._open(request.key)

    def poll(self, key: str) -> Sequence[Message]:
        """Return what attempt `key` said since the last call."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return ()
        if not self._head.answers:
            self._raise_if_gone()
            return ()
        self._end_late()
        self._open(key)
        if not attempt.opened:
            return ()
        self._standby.send_out({other.pool for other in self._attempts.values() if other.waits})
        messages = attempt.poll()
        if not self._credible(messages):
            attempt.put_back(messages)
            return ()
        if messages and isinstance(messages[-1], Succeeded | Failed):
            self.cancel(key)
        return messages

    def cancel(self, key: str) -> None:
        """End attempt `key`, if there is one, and give back what it holds.

        One that this process doesn't know may be that of an earlier controller: it is looked for
        in the cluster.
        """
        attempt = self._attempts.pop(key, None)
        if attempt is None:
            self._ending.append(partial(self._end_foreign, key))
        else:
            self._ending.append(partial(self._end, attempt))
        if self._head.answers:
            self._end_late()

    def prepare(self, request: AttemptRequest) -> None:
        """Have workers stand by for attempts like `request`, once there is room for them."""
        self._standby.want(request)

    def release(self, run: str, stage: str) -> None:
        """Send away those that stand by for `stage`, if any do."""
        if self._head.answers:
            self._standby.release(run, stage)

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        """Return the live state of the `wanted` pools."""
        if not self._head.probe():
            raise ClusterError(f"the head of the Ray cluster at {self._head.address!r} is silent")
        live = self._live()
        return {name: nodes.status(pool, live) for name, pool in wanted.items()}

    def identities(self, wanted: Mapping[str, Pool]) -> Mapping[str, Mapping[str, str]]:
        """Return what the live nodes of the `wanted` pools are told apart by, by pool and name.

        Those that don't answer are left out.

        Raises:
            ClusterError: The cluster can't be reached.
        """
        return process.identities(wanted, self._live())

    def reports(self, wanted: Mapping[str, Pool], checks: NodeChecks) -> Sequence[NodeReport]:
        """Return what each live node is like, and whether it passes the `checks`.

        Raises:
            ClusterError: The cluster can't be reached.
        """
        return reports(wanted, self._live(), checks)

    def stacks(self, key: str, rank: int, *, seconds: float = 0.0, form: str = "") -> bytes:
        """Return what worker `rank` of attempt `key` does, whoever started it (`stacks.py`).

        Raises:
            ClusterError: There is no such worker any more, or it can't be looked at.
        """
        return stacks.stacks(key, rank, seconds=seconds, form=form)

    def _live(self) -> Sequence[Node]:
        try:
            return self._nodes.live()
        except ray_errors.ERRORS as error:
            raise ClusterError(f"the Ray cluster can't be asked for its nodes: {error}") from error

    def close(self) -> None:
        """Cancel what still runs and leave the cluster. Safe to call twice."""
        for key in list(self._attempts):
            self.cancel(key)
        for thread in self._leaving.values():
            thread.join()
        if self._head.answers:
            self._standby.close()
        if self._ours:
            access.leave()
            self._ours = False

    def _end_late(self) -> None:
        """End what was cancelled, also while the head was away."""
        while self._ending:
            end = self._ending.pop()
            with suppress(*ray_errors.ERRORS):
                end()

    def _end(self, attempt: _RayAttempt) -> None:
        """Have an attempt of ours ended, beside all else."""
        name = f"{access.ASKS}{attempt.key}"
        thread = threading.Thread(target=ending.end, args=(attempt,), name=name, daemon=True)
        thread.start()
        self._leaving[attempt] = thread

    def _still_leaving(self) -> Iterator[_RayAttempt]:
        """Yield the attempts that were cancelled and have not left yet."""
        for attempt, thread in list(self._leaving.items()):
            if thread.is_alive():
                yield attempt
            else:
                del self._leaving[attempt]

    def _end_foreign(self, key: str) -> None:
        """Kill what another controller started as `key`, and those that it had stand by.

        They are not asked: their epoch is over, and nothing that they save counts any more.
        """
        process.end(key)
        run, stage, _ = key.rsplit("/", 2)
        if not self._standby.has(run, stage):
            process.end_group(process.standby(run, stage))

    def _open(self, key: str) -> None:
        """Look for a place for attempt `key`, unless that was done.

        An earlier attempt of its stage goes first: the checkpoint that it may be saving counts.
        """
        attempt = self._attempts[key]
        if attempt.opened or any(
            leaving.stage == attempt.stage for leaving in self._still_leaving()
        ):
            return
        attempt.open(self._nodes, self._reserved(attempt), self._standby)

    def _reserved(self, asking: _RayAttempt) -> Counter[str]:
        reserved: Counter[str] = Counter()
        for attempt in (*self._attempts.values(), *self._still_leaving()):
            if attempt.pool == asking.pool and attempt is not asking:
                reserved.update(attempt.resources)
        return reserved

    def _credible(self, messages: Sequence[Message]) -> bool:
        """Whether what is told may be told: a loss may be the head's, and then it is no loss."""
        last = messages[-1] if messages else None
        return (
            not isinstance(last, Failed)
            or last.failure.kind not in LOSSES
            or self._head.probe(closely=True)
        )

    def _raise_if_gone(self) -> None:
        if self._head.lost:
            how = "was started anew, without what it knew" if self._head.anew else "is gone"
            raise ClusterError(f"the Ray cluster at {self._head.address!r} {how}")


class _RayAttempt:
    """One attempt: its place, and the workers that are sent there."""

    def __init__(self, request: AttemptRequest, worker: Worker) -> None:
        self._request = request
        self._worker = worker
        self._gang: Gang | None = None
        self._place: Placement | None = None
        self._error: Exception | None = None
        self._again: tuple[Message, ...] = ()
        self.opened = False

    def open(
        self, nodes: ClusterNodes, reserved: Mapping[str, float], standby: StandbyGangs
    ) -> None:
        """Ask for the place, where others of this process hold `reserved`, and send the workers.

        Those that stand by in `standby` have both already.
        """
        self.opened = True
        try:
            ready = standby.take(self._request)
            if ready is None:
                self._send(Placement(self._request, nodes, reserved))
            else:
                self._send(ready.adopt(self._request), ready.actors)
        except HeadSilentError:  # there is a place when it is back
            self.opened = False
        except ray_errors.ERRORS as error:
            self._error = error

    def _send(self, place: Placement, actors: Sequence[Remote] = ()) -> None:
        self._place, self._gang = place, None
        if not place.impossible:
            self._gang = Gang(self._worker, place.request, place, actors)

    @property
    def key(self) -> str:
        """Its key."""
        return self._request.key

    @property
    def stage(self) -> str:
        """Its run and stage."""
        return self.key.rpartition("/")[0]

    @property
    def kill_after(self) -> float:
        """How many seconds its workers have to leave when they are asked to."""
        return self._request.kill_after

    @property
    def waits(self) -> bool:
        """Whether its workers are not all there yet."""
        return self._gang is None or not self._gang.begun

    def ask_to_end(self) -> bool:
        """Ask its workers to end; return whether any can be."""
        if self._gang is None or self.waits:
            return False
        self._gang.ask_to_end()
        return True

    def all_left(self) -> bool:
        """Return whether nobody is left of those who were asked."""
        return self._gang is None or self._gang.all_left()

    @property
    def pool(self) -> str:
        """Name of its pool."""
        return self._request.pool.name

    @property
    def resources(self) -> Mapping[str, float]:
        """What it asked of the pool."""
        return self._place.resources if self._place else {}

    def poll(self) -> Sequence[Message]:
        """Return what is new."""
        if self._again:
            again, self._again = self._again, ()
            return again
        if self._place is None or self._error is not None:
            return (self._broken(self._error or ConnectionError("Ray is away")),)
        try:
            messages = self._gang.poll() if self._gang else []
            return self._wait(self._place) if self.waits and not messages else messages
        except HeadSilentError:  # what is told of the place is told when it is back
            return ()
        except ray_errors.ERRORS as error:
            return (self._broken(error),)

    def put_back(self, messages: Sequence[Message]) -> None:
        """Have the next poll return `messages` again."""
        self._again = tuple(messages)

    def end(self) -> None:
        """Kill the processes that are left, and give the place back; Ray's store may be slow."""
        if self._gang is not None:
            self._gang.end()
        if self._place is not None:
            self._place.give_back()
        process.forget(self.key)

    def _wait(self, place: Placement) -> Sequence[Message]:
        """Return what is new of the place; ask for another one where that is nearer."""
        news = place.news()
        request = None if news else place.anew()
        if request is not None:
            self.end()
            self._request = request
            self._send(Placement(request, place.nodes, {}))
        return news

    def _broken(self, error: Exception) -> Failed:
        return Failed(ray_errors.failure(error, self._request, rank=0, node=None))
