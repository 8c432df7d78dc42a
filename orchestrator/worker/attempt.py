"""What runs in each worker of an attempt: imports the job, calls it, tells how it ended.

The job runs in a thread of its own; what it says leaves as a stream of messages, in batches.
Whatever the job does, raise `SystemExit` included, becomes one value.
"""

from __future__ import annotations

import importlib
import math
import os
import platform
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from orchestrator.core.artifact import ArtifactRef, Hashed
from orchestrator.core.errors import StaleAttemptError, StorageSetUpError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.messages import AttemptRequest, Failed, LogLine, Message, Succeeded
from orchestrator.node import rendezvous_port
from orchestrator.node.job_import import check_params, code_folders, import_request, relative
from orchestrator.node.process_hardware import backends, hardware_of
from orchestrator.ports import ArtifactStore, Chip, Clock
from orchestrator.worker.context import AttemptContext, meta_of
from orchestrator.worker.exception_report import describe
from orchestrator.worker.fence_watch import FenceWatch
from orchestrator.worker.fencing import Fence
from orchestrator.worker.message_queue import MessageQueue, valid_message
from orchestrator.worker.native_output import following
from orchestrator.worker.output_capture import capture
from orchestrator.worker.output_folder import has_files
from orchestrator.worker.real_chip import Chips, real_chip
from orchestrator.worker.reported import results
from orchestrator.worker.runtime import (
    AttemptCancelledError,
    AttemptRuntime,
    DrainedError,
    TrackedRun,
    nowhere,
)
from orchestrator.worker.termination import asked_to_end
from orchestrator.worker.unheard import UnheardWatch
from orchestrator.worker.watchdog import Hang, Watchdog

_STDERR = 2


@dataclass(frozen=True, slots=True)
class StreamPace:
    """How often what a job says is read, and how long one that was given up may take to end.

    `first` is for how many seconds a job that has been silent is listened to at most, `batch` the
    same while it speaks: each waking of the reader costs it some CPU time.
    """

    first: float = 0.1
    batch: float = 0.3
    grace: float = 1.0


PACE = StreamPace()


class OpenProcessGroup(Protocol):
    """Opens the process group of a gang: `adapters.torch_process_group.open_process_group`."""

    def __call__(  # noqa: PLR0913 - what a worker knows of its gang
        self,
        rendezvous: str | None,
        rank: int,
        world_size: int,
        backend: str,
        *,
        cpu_threads: int,
        fetch: Callable[[], object],
        go_on: Callable[[], object],
    ) -> AbstractContextManager[None]:
        """Return what holds the group open. A gang of one needs none.

        Before that it has `fetch` get what the worker reads, and waits until all have done so, as
        long as `go_on` raises nothing.
        """
        ...


def stream(  # noqa: PLR0913 - all that differs between a pool and a test
    request: AttemptRequest,
    *,
    rank: int,
    rendezvous: str | None,
    store: ArtifactStore,
    clock: Clock,
    process_group: OpenProcessGroup,
    chip: Chips = real_chip,
    pace: StreamPace = PACE,
    tracked_run: TrackedRun = nowhere,
    end_process: Callable[[Sequence[Message]], None] = lambda _: None,
) -> Iterator[Sequence[Message]]:
    """Run worker `rank` of an attempt; yield what it says in batches, last exactly one outcome.

    Never raises. Closing the generator tells the job to end and takes its scratch away, and so
    does whoever asks the process to end: a checkpoint that is being saved is finished before.
    `end_process` is called with what is said last where a newer attempt has replaced this one and
    nobody reads that.
    """
    outbox = MessageQueue(rank, following())
    runtime = AttemptRuntime(store, clock, outbox, threading.Event(), tracked_run=tracked_run)
    attempt = _JobRun(request, rank, rendezvous, process_group, chip, runtime)
    thread = threading.Thread(target=attempt.run, name=request.key, daemon=True)
    watchdog = Watchdog(runtime.heartbeat, clock, thread, attempt.step)
    fence_watch = FenceWatch(
        attempt.fence, clock, request.waits.fence, rank=rank, workers=request.needs.workers
    )

    def end_unheard(error: StaleAttemptError) -> None:
        end_process(attempt.end_unheard(error))

    unheard = UnheardWatch(fence_watch.stale, request.waits.fence, runtime.over, end_unheard)
    unheard.begin()
    thread.start()  # the threads that come from here on are the job's
    try:
        batch: Sequence[Message] = ()
        while not runtime.outbox.wait(pace.batch if batch else pace.first):
            unheard.turns += 1
            batch = [*runtime.outbox.drain(), *watchdog.alive(rank)]
            if batch:
                yield batch
            if asked_to_end():
                return
            stale = fence_watch.stale()
            if stale is not None:
                yield attempt.replaced(stale)
                return
            hang = watchdog.hang(request.watch.hang, request.waits)
            if hang is not None:
                yield from attempt.hung(hang, thread, pace.batch, watchdog)
                return
        yield runtime.outbox.last()
    finally:
        runtime.stop.set()
        deque(attempt.leaving(thread, pace.first), maxlen=0)
        runtime.over.set()
        thread.join(pace.grace)
        attempt.drop()


def not_set_up(request: AttemptRequest, error: StorageSetUpError) -> Iterator[Sequence[Message]]:
    """Yield the outcome of a worker whose host is not set up for the storage of the attempt."""
    pool = request.pool.name
    evidence = f"pool {pool!r}: {error}"
    yield [Failed(Failure(kind=FailureKind.SET_UP, evidence=evidence, pool=pool))]


class _JobRun:
    """One worker's part of an attempt."""

    def __init__(
        self,
        request: AttemptRequest,
        rank: int,
        rendezvous: str | None,
        process_group: OpenProcessGroup,
        chip: Chips,
        runtime: AttemptRuntime,
    ) -> None:
        self._request = request
        self._rank = rank
        self._rendezvous = rendezvous
        self._open_process_group = process_group
        self._hold_chip = chip
        self._runtime = runtime
        self._context: AttemptContext | None = None
        self._output: Path | None = None
        self._working = False
        self.by_itself = False  # whether it starts processes of its own, which it has to end
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do the work; the outcome is the last that leaves."""
        outcome: Succeeded | Failed = Failed(self._failure(FailureKind.SOFTWARE, "no outcome"))
        try:
            with capture(self._print):
                outcome = self._outcome()
            self.drop()
        finally:
            self._runtime.outbox.finish(outcome)

    def step(self) -> int | None:
        """Return the last step that the job named, while it is at work."""
        return self._context.last_step if self._context and self._working else None

    def outlast_save(self, seconds: float) -> None:
        """Wait for the checkpoint that is being saved, at most for `seconds`."""
        if self._context is not None:
            self._context.checkpoints.let_finish(seconds)

    def leaving(self, thread: threading.Thread, turn: float) -> Iterator[None]:
        """Wait in turns for what a job does that shall end, as long as it has to leave.

        One that has started processes of its own ends them, and saves what they have left; of
        others the checkpoint is waited for that is being saved.
        """
        for _ in range(math.ceil(self._request.kill_after / turn)):
            if self._runtime.over.is_set():
                return
            if self.by_itself and thread.is_alive():
                thread.join(turn)
            elif self._context is not None and self._context.checkpoints.saving:
                self._context.checkpoints.let_finish(turn)
            else:
                return
            yield

    def end_unheard(self, error: StaleAttemptError) -> Sequence[Message]:
        """End as far as a process can from within; return what would have been said last."""
        os.write(_STDERR, f"{self._ending(error)}\n".encode())
        self._runtime.stop.set()
        self.outlast_save(self._request.kill_after)
        self.drop()
        return [self._replaced_by(error)]

    def _ending(self, error: StaleAttemptError) -> str:
        return f"worker {self._rank} on {platform.node()!r} ends: {error}"

    def fence(self) -> Fence | None:
        """Return the fence that this worker is to look at, where its job has checkpoints."""
        return self._context.checkpoints.fence if self._context else None

    def replaced(self, error: StaleAttemptError) -> Sequence[Message]:
        """Return what is said last of a job that a newer attempt has replaced."""
        self._print(self._ending(error))
        return [*self._runtime.outbox.drain(), self._replaced_by(error)]

    def _replaced_by(self, error: StaleAttemptError) -> Message:
        return valid_message(self._failed(FailureKind.CANCELLED, str(error)))

    def hung(
        self, hang: Hang, thread: threading.Thread, turn: float, watchdog: Watchdog
    ) -> Iterator[Sequence[Message]]:
        """Yield what is said while a job that hangs is ended, and last that it hangs.

        Whoever hears that ends this process: what is to be saved is saved before.
        """
        runtime, failure = self._runtime, self._failure(FailureKind.HANG, hang.line, hang.stack)
        runtime.stop.set()
        for _ in self.leaving(thread, turn):
            yield [*runtime.outbox.drain(), *watchdog.alive(self._rank)]
        runtime.over.set()
        yield [*runtime.outbox.drain(), valid_message(Failed(failure, hang.at))]

    def drop(self) -> None:
        """Take the scratch folder away. Safe to call twice."""
        if self._output is not None:
            self._runtime.store.drop(self._output)

    def _outcome(self) -> Succeeded | Failed:
        try:
            return self._execute()
        except BaseException as error:  # noqa: BLE001 - user code: any outcome becomes a value
            # Its frames hold the links of the gang. To let go of them may wait for the others, who
            # wait for this one: that must not be before the outcome is told.
            self._error = error
            return self._of(error)

    def _of(self, error: BaseException) -> Failed:
        if isinstance(error, AttemptCancelledError | StaleAttemptError):
            return self._failed(FailureKind.CANCELLED, str(error))
        if isinstance(error, DrainedError):
            failure = self._failure(FailureKind.DRAINED, str(error))
            return Failed(replace(failure, step=error.step))
        if self._context is not None:
            self._context.checkpoints.settle()
        report = describe(error, self._request.signatures)
        failed = self._failed(report.kind, relative(report.line), relative(report.detail))
        failure = replace(failed.failure, certain=report.certain, sign=report.sign)
        return replace(failed, failure=failure)

    def _execute(self) -> Succeeded | Failed:
        request = self._request
        missing = self._missing_device_package()
        if missing is not None:
            return missing
        job = import_request(request, self._runtime.store)
        check_params(request.job, job, request.params)
        self.by_itself = bool(getattr(job, "meets_by_itself", False))
        self._output = self._runtime.store.scratch(request.key)
        inputs: dict[str, Path] = {}
        self._context = AttemptContext(request, self._rank, inputs, self._output, self._runtime)
        self._context.code = code_folders(request, self._runtime.store)

        def fetch() -> None:
            inputs.update({n: self._runtime.store.fetch(ref) for n, ref in request.inputs.items()})

        with self._chip() as chip, self._process_group(self._context, fetch):
            self._context.chip = chip
            self._context.go_on()
            self._working = True
            try:
                returned = job(self._context, **request.params)
            finally:
                self._working = False
        self._context.checkpoints.finish()
        metrics = results(returned, request.job)
        return Succeeded(self._commit(self._output, self._context.hashes), metrics)

    def _chip(self) -> AbstractContextManager[Chip]:
        runtime = self._runtime
        return self._hold_chip(self._request, self._rank, clock=runtime.clock, stop=runtime.stop)

    def _process_group(
        self, context: AttemptContext, fetch: Callable[[], None]
    ) -> AbstractContextManager[None]:
        needs = self._request.needs
        if self.by_itself:
            return self._left_alone(context, fetch)
        return self._open_process_group(
            self._rendezvous,
            self._rank,
            needs.workers,
            backends(context.hardware),
            cpu_threads=max(1, int(needs.cpus)),
            fetch=fetch,
            go_on=context.go_on,
        )

    @contextmanager
    def _left_alone(self, context: AttemptContext, fetch: Callable[[], None]) -> Iterator[None]:
        """Leave the port of the gang to what the job starts, once all workers are ready for it."""
        fetch()
        context.rendezvous = self._rendezvous or ""
        try:
            yield
        finally:
            rendezvous_port.close(self._rendezvous or "")

    def _missing_device_package(self) -> Failed | None:
        """Import the package that adds the chip's torch device, where there is one."""
        pool = self._request.pool
        package = pool.accelerator.torch_package
        hardware = hardware_of(pool, self._request.needs)
        if package is None or hardware.emulated or ":" not in hardware.device:
            return None
        try:
            importlib.import_module(package)
        except ImportError as error:
            line = f"pool {pool.name!r}: package {package!r} can't be imported: {error}"
            return self._failed(FailureKind.SET_UP, line)
        return None

    def _commit(self, output: Path, hashed: Mapping[str, Hashed]) -> ArtifactRef | None:
        if self._rank != 0 or not has_files(output):
            return None
        store, meta = self._runtime.store, meta_of(self._request)
        return store.commit(output, self._request.key, meta, hashed)

    def _failed(self, kind: FailureKind, line: str, detail: str = "") -> Failed:
        ended_at = self._context.ended_at if self._context else None
        at = self._runtime.clock.now() if ended_at is None else ended_at
        return Failed(self._failure(kind, line, detail), at)

    def _failure(self, kind: FailureKind, line: str, detail: str = "") -> Failure:
        return Failure(
            kind=kind,
            evidence=line,
            detail=detail,
            pool=self._request.pool.name,
            rank=self._rank,
            step=self._context.last_step if self._context else None,
            adjusts=bool(self._context and self._context.adjusts),
        )

    def _print(self, line: str) -> None:
        self._runtime.outbox.line(LogLine(self._rank, line))
