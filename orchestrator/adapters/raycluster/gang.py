"""The worker processes of one attempt: a task for one worker, actors for several.

A worker is a stream: a remote generator of batches of messages. While nobody reads, it stands
still some batches ahead, and what its job says waits in the job's own queue. Ray itself never
retries. Of several failures the cause is told and not its effects: a lost worker breaks the links
of the others, who may be heard before Ray knows of the loss. What a worker that died has left is
heard before that is weighed. A worker of which nothing at all is heard any more hangs with its
whole process.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import ray

from orchestrator.adapters.raycluster import process, ray_errors
from orchestrator.adapters.raycluster.clock_offsets import ClockOffsets
from orchestrator.adapters.raycluster.member import Remote, muster, run_task, sealed
from orchestrator.adapters.raycluster.placement import Placement
from orchestrator.adapters.raycluster.postmortem import PostMortem, of_the_node
from orchestrator.adapters.raycluster.process import WorkerProcess
from orchestrator.adapters.raycluster.ranking import WorkerPlace, ranked
from orchestrator.adapters.raycluster.silence import Silence
from orchestrator.core.failures.failure_report import LINES_KEPT, FailureReport
from orchestrator.core.failures.kinds import Failure, FailureKind, of_versions
from orchestrator.core.spec.emulation import HOST_DEVICE as HOST
from orchestrator.messages import (
    Alive,
    AttemptRequest,
    Failed,
    LogLine,
    Message,
    Placed,
    Points,
    Progress,
    Succeeded,
)
from orchestrator.node import software
from orchestrator.node.masking import masked
from orchestrator.ports import Worker

SECONDS_BETWEEN_LOOKS = 2.0
BATCHES_AHEAD = 32  # of the reader; a worker says one in 0.3 s at most, so these are 10 s
_STREAM = {"num_returns": "streaming", "_generator_backpressure_num_objects": BATCHES_AHEAD}


class Gang:
    """The workers of an attempt, sent to their place."""

    def __init__(
        self,
        worker: Worker,
        request: AttemptRequest,
        place: Placement,
        actors: Sequence[Remote] = (),
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask for the processes, where no `actors` stand by; they come up when there is room."""
        self._worker = worker
        self._request = request
        self._place = place
        self._now = now
        self._actors = list(actors)
        self._processes: dict[int, WorkerProcess] = {}
        self._streams: dict[int, Remote] = {}
        self._shared: Remote = None
        self._succeeded: dict[int, Succeeded] = {}
        self._steps: dict[int, int] = {}
        self._failure_report = FailureReport(request.signatures, request.waits.settle)
        self._lines: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=LINES_KEPT))
        self._post_mortem = PostMortem(now, request.waits.remains)
        self._broken: dict[int, Exception] = {}  # streams of which it is not known yet why
        self._died: dict[int, Failure] = {}  # whose remains are being fetched
        self._silence = Silence(request.watch.hang, request.waits)
        self._clocks = ClockOffsets()
        self._mustered: list[Remote] = []  # where each actor is, until all are there
        self._next_look = now() + SECONDS_BETWEEN_LOOKS
        self._launch()

    @property
    def begun(self) -> bool:
        """Whether any worker has started."""
        return bool(self._processes)

    def poll(self) -> list[Message]:
        """Return what the workers said; the last of all is one outcome."""
        now = self._now()
        self._silence.listen(now)
        self._send_out(now)
        messages: list[Message] = []
        for rank, message in self._drain(self._streams):
            messages.extend(self._heard(rank, message, now))
        self._weigh_broken(now)
        messages.extend(self._heard_of_the_dead(now))
        self._notice_silence(now)
        self._notice_dead_nodes(now)
        outcome = self._outcome(now)
        return [*messages, outcome] if outcome else messages

    def ask_to_end(self) -> None:
        """Ask the workers to end that can hear it: not those that have failed, or are done.

        One that stands still, as nobody read, hears nothing: what it has said is taken before.
        """
        running = self._streams.keys() - self._failure_report.failed - self._succeeded.keys()
        for _ in self._drain(running):
            pass
        for rank in running & self._streams.keys():
            ray.cancel(self._streams[rank])

    def all_left(self) -> bool:
        """Return whether those have left that were asked to end.

        What they say is not read: a cancelled stream that is at its end waits for its task.
        """
        running = self._streams.keys() - self._failure_report.failed
        return _completed([self._streams[rank] for rank in running])

    def end(self) -> None:
        """Kill every process that has not ended by itself. Safe to call twice."""
        for actor in self._actors:
            ray.kill(actor)
        if not self._actors:
            for rank, stream in self._streams.items():
                ray.cancel(stream, force=True)
                if rank in self._processes and not _completed([stream]):
                    process.kill(self._processes[rank])  # one that is stopped can't hear Ray
        self._actors, self._streams, self._mustered = [], {}, []

    # --- processes -----------------------------------------------------------------------------

    def _launch(self) -> None:
        workers = self._request.needs.workers
        if workers == 1 and not self._actors:
            # a process that has a device, real or emulated, keeps it; any other is used again
            pool = self._request.pool
            fresh = self._request.needs.devices and not (pool.emulated and pool.device == HOST)
            task = ray.remote(max_calls=1 if fresh else 0)(run_task).options(
                **_STREAM,
                max_retries=0,
                name=self._request.key,
                **self._place.options(0),
            )
            self._streams[0] = task.remote(sealed(self._worker, self._request), 0, None)
            return
        self._actors = self._actors or muster(self._place)
        parcel = sealed(self._worker, self._request)
        self._mustered = [actor.place.remote(parcel) for actor in self._actors]

    def _send_out(self, now: float) -> None:
        """Give the workers their ranks and let them work, once all are there.

        Those of one node follow each other, by the numbers of their chips.
        """
        if not self._mustered:
            return
        ready = set(_ready(self._mustered))
        places: list[WorkerPlace] = []
        for number, answer in enumerate(self._mustered):
            try:
                places += [ray.get(answer)] if answer in ready else []
            except ray_errors.ERRORS as error:
                self._mustered = []
                (failure,) = self._lost({number: error}).values()
                self._report(number, failure, None, now)
                return
        if len(places) < len(self._mustered):
            return
        self._mustered = []
        unfit = self._unfit(places)
        if unfit is not None:
            self._report(*unfit, None, now)
            return
        order, node_ranks = ranked(places, self._place.nodes.name)
        self._actors = [self._actors[number] for number in order]
        self._request = replace(self._request, node_ranks=node_ranks)
        address = None  # of one worker
        if len(order) > 1:
            address = self._actors[0].address.remote()  # Ray hands on what it will return
        # It goes to each node once, not to each worker.
        self._shared = ray.put(sealed(self._worker, self._request))
        for rank, actor in enumerate(self._actors):
            run = actor.run.options(**_STREAM)
            self._streams[rank] = run.remote(self._shared, rank, address)

    def _unfit(self, places: Sequence[WorkerPlace]) -> tuple[int, Failure] | None:
        """Return which worker may not work with the others, and why, if one may not."""
        package, name = self._request.pool.accelerator.torch_package, self._place.nodes.name
        first = next((place for place in places if not place.unfit), places[0])
        for number, place in enumerate(places):
            unlike = software.unlike(first.software, place.software, package)
            nodes = f"nodes {name(first.node)!r} and {name(place.node)!r}"
            line = f"workers of one gang run {unlike} on {nodes}; install the same on both"
            if place.unfit or unlike:
                return number, of_versions(place.unfit or line, name(place.node))
        return None

    # --- messages ------------------------------------------------------------------------------

    def _drain(self, ranks: Iterable[int]) -> Iterator[tuple[int, Message]]:
        """Yield what the workers `ranks` have said, each with its rank, without waiting for more.

        Nobody is read without end: who says more meanwhile is heard at the next turn.
        """
        speaking = sorted(ranks)
        for _ in range(BATCHES_AHEAD):
            ready = set(_ready([self._streams[rank] for rank in speaking]))
            speaking = [rank for rank in speaking if self._streams[rank] in ready]
            for rank in speaking:
                for message in self._batch(rank):
                    yield rank, message
            speaking = [rank for rank in speaking if rank in self._streams]
            if not speaking:
                return

    def _batch(self, rank: int) -> Iterator[Message]:
        """Yield what worker `rank` says next, which is there."""
        try:
            yield from ray.get(next(self._streams[rank]))
        except StopIteration:
            del self._streams[rank]
        except ray_errors.ERRORS as error:
            del self._streams[rank]
            if rank not in self._succeeded:
                self._broken[rank] = error

    def _weigh_broken(self, now: float) -> None:
        """Tell why streams broke; where a process died, that waits for what it left."""
        broken, self._broken = self._broken, {}
        for rank, failure in self._lost(broken).items():
            if failure.kind is FailureKind.WORKER_LOST:
                self._died[rank] = failure
                self._post_mortem.begin(rank, self._processes.get(rank))
            else:
                outcome = masked(Failed(failure), self._request.secrets.values())
                self._report(rank, outcome.failure, None, now)

    def _heard_of_the_dead(self, now: float) -> Iterator[Message]:
        """Hear what dead workers left; report them once that has come, or will not come."""
        for rank, remains in self._post_mortem.arrived():
            heard = set(self._lines[rank])
            for line in remains.lines:
                if line not in heard:
                    yield from self._heard(rank, LogLine(rank, line), now)
            if remains.failed is not None:
                yield from self._heard(rank, remains.failed, now)
        if self._died and not self._post_mortem.pending:
            died, self._died = self._died, {}
            for rank, failure in died.items():
                own = [line for line in self._lines[rank] if not of_the_node(line)]
                self._report(rank, ray_errors.ended(failure, own), None, now)

    def _heard(self, rank: int, message: Message | WorkerProcess, now: float) -> Iterator[Message]:
        """Keep outcomes until all is known, and the placement until all are placed."""
        if isinstance(message, WorkerProcess):
            self._processes[rank] = message
            if len(self._processes) == self._request.needs.workers:
                yield Placed(self._names(), self._processes[0].software)
            return
        message = masked(message, self._request.secrets.values())
        self._note(rank, message, now)
        if isinstance(message, Succeeded):
            self._succeeded[rank] = message
        elif isinstance(message, Failed):
            at = message.at and self._clocks.on_one_clock(self._node(rank), message.at)
            self._report(rank, message.failure, at, now)
        elif rank == 0 or not isinstance(message, Points | Progress):
            yield message

    def _note(self, rank: int, message: Message, now: float) -> None:
        """Take down what a message tells beside what it is."""
        self._silence.heard(rank, message, now)
        if isinstance(message, Alive) and message.at is not None:
            self._clocks.heard(self._node(rank), message.at, now)
        if isinstance(message, Alive | Points) and message.step is not None:
            self._steps[rank] = message.step
        if isinstance(message, LogLine):
            self._failure_report.hear(message.rank, message.text)
            self._lines[rank].append(message.text)

    def _report(self, rank: int, failure: Failure, at: float | None, now: float) -> None:
        located = ray_errors.located(failure, self._name(rank), rank, self._steps.get(rank))
        located = replace(located, pool=located.pool or self._request.pool.name)
        self._failure_report.report(rank, located, at=at, now=now)

    def _notice_silence(self, now: float) -> None:
        """Report the workers whose processes say nothing at all any more.

        Where the node does not answer either it is lost, which Ray may be long to say.
        """
        speaking = self._streams.keys() - self._succeeded.keys() - self._failure_report.failed
        hurry = self._failure_report.hangs
        silent = dict(self._silence.of(speaking, now, hurry=hurry))
        standing = self._standing(silent)
        for rank, seconds in silent.items():
            failure = ray_errors.silent(self._request, rank, self._name(rank), seconds)
            gone = self._node(rank) not in standing
            self._report(rank, ray_errors.with_node(failure) if gone else failure, 0.0, now)

    def _notice_dead_nodes(self, now: float) -> None:
        """Report workers of nodes that are dead to Ray; a stopped raylet leaves them at work."""
        if now < self._next_look or not self._streams:
            return
        self._next_look = now + SECONDS_BETWEEN_LOOKS
        alive = self._place.nodes.alive()
        for rank, worker in self._processes.items():
            if (
                worker.node not in alive
                and rank in self._streams
                and rank not in self._failure_report.failed
            ):
                gone = ConnectionError("Ray counts it as dead")
                failure = ray_errors.failure(gone, self._request, rank=rank, node=self._name(rank))
                self._report(rank, ray_errors.with_node(failure), None, now)

    # --- outcome -------------------------------------------------------------------------------

    def _outcome(self, now: float) -> Succeeded | Failed | None:
        if self._died:
            return None
        if self._failure_report.failed:
            all_known = not self._streams.keys() - self._failure_report.failed
            verdict = self._failure_report.verdict(now, all_known=all_known)
            return Failed(verdict) if verdict else None
        if self._streams or self._mustered:
            return None
        without = next((r for r in self._ranks() if r not in self._succeeded), None)
        if without is not None:
            return Failed(ray_errors.without_outcome(self._request, without, self._name(without)))
        return self._succeeded[0]

    def _lost(self, errors: Mapping[int, Exception]) -> dict[int, Failure]:
        """Translate `errors`, by worker; one that went with its node is a lost node."""
        failures: dict[int, Failure] = {}
        for rank, error in errors.items():
            identity = self._processes.get(rank) or process.of(self._request.key, rank)
            if identity:  # it may have died before that was heard
                self._processes[rank] = identity
            name = self._name(rank)
            failures[rank] = ray_errors.failure(error, self._request, rank=rank, node=name)
        lost = [rank for rank in failures if failures[rank].kind is FailureKind.WORKER_LOST]
        standing = self._standing(lost)
        gone = {rank for rank in lost if self._node(rank) not in standing}
        gone |= {rank for rank in failures if failures[rank].kind is FailureKind.NODE_LOST}
        for rank in gone & self._processes.keys():
            failures[rank] = ray_errors.with_node(failures[rank])
        return failures

    def _standing(self, ranks: Collection[int]) -> set[str]:
        """Return which nodes of workers `ranks` live; one that is not known is taken to."""
        nodes = {self._node(rank) for rank in ranks} - {""}
        return {"", *(self._place.nodes.standing(nodes) if nodes else ())}

    def _ranks(self) -> range:
        return range(self._request.needs.workers)

    def _node(self, rank: int) -> str:
        """Return the id of the node of a worker; empty where that is not known."""
        return self._processes[rank].node if rank in self._processes else ""

    def _name(self, rank: int) -> str | None:
        identity = self._processes.get(rank)
        return self._place.nodes.name(identity.node) if identity else None

    def _names(self) -> tuple[str, ...]:
        name = self._place.nodes.name
        return tuple(name(self._processes[rank].node) for rank in self._ranks())


def _ready(streams: list[Remote]) -> list[Remote]:
    """Return those of `streams` that have something to read, or are at their end."""
    if not streams:
        return []
    ready, _ = ray.wait(streams, num_returns=len(streams), timeout=0, fetch_local=False)
    return list(ready)


def _completed(streams: Sequence[Remote]) -> bool:
    """Return whether the tasks that `streams` come from have ended, however they did."""
    ends = [stream.completed() for stream in streams]
    return len(_ready(ends)) == len(ends)
