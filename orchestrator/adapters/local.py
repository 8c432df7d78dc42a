"""The port `Cluster` in this process: each attempt a thread, devices counted as on a cluster.

For fast tests and tiny jobs. One worker an attempt: a gang needs a process for each worker, and
those are Ray's.
"""

from __future__ import annotations

import queue
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace

from orchestrator.core.failures.failure_report import FailureReport
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.spec.hardware import Pool
from orchestrator.messages import (
    AttemptRequest,
    Failed,
    LogLine,
    Message,
    Placed,
    PoolState,
    PoolStatus,
    Succeeded,
    Waiting,
)
from orchestrator.node.masking import masked
from orchestrator.ports import Worker
from orchestrator.worker import rank_environment

NODE = "local"
SECONDS_TO_END = 5.0


class LocalCluster:
    """Attempts in threads, on `pools` whose devices exist as numbers only."""

    def __init__(self, worker: Worker, pools: Mapping[str, Pool]) -> None:
        """Run `worker` in each attempt; all devices are free."""
        self._worker = worker
        self._pools = pools
        self._free = {name: pool.devices for name, pool in pools.items()}
        self._attempts: dict[str, _LocalAttempt] = {}

    def start(self, request: AttemptRequest) -> None:
        """Ask for an attempt."""
        self._attempts[request.key] = _LocalAttempt(request)

    def poll(self, key: str) -> Sequence[Message]:
        """Return what attempt `key` said since the last call."""
        attempt = self._attempts.get(key)
        if attempt is None:
            return ()
        messages = attempt.messages() if attempt.running else self._place(attempt)
        if messages and isinstance(messages[-1], Succeeded | Failed):
            self.cancel(key)
        return messages

    def cancel(self, key: str) -> None:
        """End attempt `key`, if there is one, and free its devices."""
        attempt = self._attempts.pop(key, None)
        if attempt is not None and attempt.running:
            attempt.end()
            self._free[attempt.request.pool.name] += attempt.devices

    def prepare(self, request: AttemptRequest) -> None:
        """Have nobody stand by: a thread is there at once."""

    def release(self, run: str, stage: str) -> None:
        """Send nobody away."""

    def pools(self, wanted: Mapping[str, Pool]) -> Mapping[str, PoolStatus]:
        """Return the state of the `wanted` pools."""
        return {name: self._status(name) for name in wanted}

    def close(self) -> None:
        """Cancel what still runs. Safe to call twice."""
        for key in list(self._attempts):
            self.cancel(key)

    def _status(self, name: str) -> PoolStatus:
        if name not in self._pools:
            return PoolStatus(name=name, state=PoolState.DOWN)
        pool, free = self._pools[name], self._free[name]
        return PoolStatus(
            name=name,
            state=PoolState.UP if free or not pool.devices else PoolState.BUSY,
            nodes=pool.nodes,
            devices=pool.devices,
            free=free,
        )

    def _place(self, attempt: _LocalAttempt) -> Sequence[Message]:
        name = attempt.request.pool.name
        refusal = _refusal(attempt, self._pools.get(name))
        if refusal:
            failure = Failure(kind=FailureKind.PLACEMENT, evidence=refusal, pool=name)
            return (Failed(failure),)
        if attempt.devices > self._free[name]:
            return attempt.waits(f"pool {name!r} is busy: {attempt.devices} devices are not free")
        self._free[name] -= attempt.devices
        attempt.begin(self._worker)
        return (Placed((NODE,)),)


def _refusal(attempt: _LocalAttempt, pool: Pool | None) -> str:
    """Return why the attempt can never be placed; empty where it can."""
    name = attempt.request.pool.name
    if pool is None or attempt.devices > pool.devices:
        have = pool.devices if pool else 0
        return f"pool {name!r} has {have!r} devices, the attempt asks for {attempt.devices!r}"
    workers = attempt.request.needs.workers
    if workers > 1:
        return f"a gang of {workers!r} workers needs processes: set cluster=ray"
    return ""


class _LocalAttempt:
    """One attempt: a thread that runs the worker, and a queue of what it says."""

    def __init__(self, request: AttemptRequest) -> None:
        elastic = request.needs.min_workers == 1
        needs = replace(request.needs, workers=1) if elastic else request.needs
        self.request = replace(request, needs=needs)
        self.devices = needs.workers * needs.devices
        self._queue: queue.SimpleQueue[Sequence[Message]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._waits = False
        self._failure_report = FailureReport(request.signatures)

    @property
    def running(self) -> bool:
        """Whether it was placed."""
        return self._thread is not None

    def waits(self, reason: str) -> Sequence[Message]:
        """Say once that there is no place."""
        announced, self._waits = self._waits, True
        return () if announced else (Waiting(reason, queued=True),)

    def begin(self, worker: Worker) -> None:
        """Start the thread."""
        self._thread = threading.Thread(target=self._run, args=(worker,), daemon=True)
        self._thread.start()

    def messages(self) -> Sequence[Message]:
        """Return what the worker said, up to its outcome."""
        taken: list[Message] = []
        while not self._queue.empty():
            taken.extend(self._heard(message) for message in self._queue.get())
        return taken

    def _heard(self, message: Message) -> Message:
        message = masked(message, self.request.secrets.values())
        if isinstance(message, LogLine):
            self._failure_report.hear(message.rank, message.text)
        if not isinstance(message, Failed):
            return message
        failure = replace(message.failure, node=NODE, rank=0)
        self._failure_report.report(0, failure, at=message.at, now=0.0)
        return Failed(self._failure_report.verdict(0.0, all_known=True) or failure, message.at)

    def end(self) -> None:
        """Ask the worker to end, and wait for it a little: a thread can't be killed."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(self.request.kill_after + SECONDS_TO_END)

    def _run(self, worker: Worker) -> None:
        last: Message | None = None
        try:
            with (
                rank_environment.applied(rank_environment.variables(self.request, 0, None)),
                closing(worker(self.request, rank=0, rendezvous=None)) as stream,  # type: ignore[type-var]
            ):
                for batch in stream:
                    self._queue.put(batch)
                    last = batch[-1] if batch else last
                    if self._stop.is_set():
                        return
        finally:  # a worker that breaks its protocol ends too; the thread prints what it raised
            if not isinstance(last, Succeeded | Failed):
                self._queue.put((Failed(_broken(self.request, sys.exception())),))


def _broken(request: AttemptRequest, error: BaseException | None) -> Failure:
    raised = f"{type(error).__name__}: {error}" if error else "worker 0 ended without an outcome"
    kind = FailureKind.UNKNOWN if error else FailureKind.SOFTWARE
    return Failure(
        kind=kind,
        evidence=raised,
        pool=request.pool.name,
        node=NODE,
        rank=0,
        certain=False,
    )
