"""Gangs of two that save checkpoints whose contents can be told from their step and rank."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import Queue
from typing import TypeVar

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.clock import SystemClock
from orchestrator.core.spec.policy import Adjust
from orchestrator.core.spec.stages import Needs
from orchestrator.job import Checkpoint
from orchestrator.worker.checkpoints import Checkpoints
from orchestrator.worker.context import meta_of
from orchestrator.worker.message_queue import MessageQueue
from orchestrator.worker.rank_membership import RankMembership
from orchestrator.worker.runtime import AttemptRuntime
from tests.build import attempt_request

T = TypeVar("T")
SIZE = 2
PREFIX = "checkpoints/run/train"


def content(checkpoint: str, rank: int, name: str) -> bytes:
    """Return what worker `rank` writes into a file of a checkpoint."""
    drawn = random.Random(f"{checkpoint} {rank} {name}")  # noqa: S311 - no secret
    return drawn.randbytes(2000 + drawn.randrange(2000))


def name_of(step: int, attempt: int) -> str:
    """Return the name of a checkpoint."""
    return f"step-{step:010d}-0001-{attempt:04d}"


class Gang:
    """The workers of one attempt, all in this process, as their checkpoints see them."""

    def __init__(
        self, root: Path, attempt: int, *, keep: int = 3, before: int | None = None
    ) -> None:
        """Take part as attempt `attempt`."""
        self.root = root
        self.attempt = attempt
        self.source = ""
        store = FsspecArtifactStore(str(root))
        runtime = AttemptRuntime(store, SystemClock(), MessageQueue(), threading.Event())
        request = attempt_request(
            attempt=attempt,
            storage=str(root),
            needs=Needs(workers=SIZE),
            keep=keep,
            adjust=Adjust(before=before),
        )
        member = RankMembership(
            request=request, rank=0, world_size=SIZE, meta=meta_of(request), runtime=runtime
        )
        self.workers = [Checkpoints(replace(member, rank=rank)) for rank in range(SIZE)]
        self._store = store

    def resume(self) -> int:
        """Return the step that the gang goes on from, 0 where it begins anew.

        What was loaded is checked by its contents, not by its hashes.
        """
        found = _at_once([worker.latest for worker in self.workers])
        assert len({one.step if one else 0 for one in found}) == 1
        if found[0] is None:
            return 0
        self.source = found[0].path.parent.name
        _check(found[0], self.source)
        return found[0].step

    def peek(self) -> int:
        """Return what the gang would go on from, and leave no claim."""
        step = self.resume()
        for name in self._store.names(f"{PREFIX}/claims"):
            if name.startswith(f"0001-{self.attempt:04d}"):
                self._store.remove(f"{PREFIX}/claims/{name}")
        return step

    def save(self, step: int) -> None:
        """Save a step, and wait for it."""
        for rank, worker in enumerate(self.workers):
            worker.save(step, _write(name_of(step, self.attempt), rank))
        for worker in reversed(self.workers):
            worker.finish()
            _, save = worker._saving or (None, None)
            if save is not None and save.error is not None:
                raise save.error  # a job may pass over it

    def save_all(self, steps: range) -> None:
        """Save several."""
        for step in steps:
            self.save(step)


def _at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Return what the calls return, made together; the first error ends the waiting."""
    ended: Queue[tuple[int, T | Exception]] = Queue()

    def call(number: int) -> None:
        try:
            ended.put((number, calls[number]()))
        except Exception as error:  # noqa: BLE001 - raised below
            ended.put((number, error))

    for number in range(len(calls)):
        threading.Thread(target=call, args=(number,), daemon=True).start()
    found: dict[int, T] = {}
    while len(found) < len(calls):
        number, result = ended.get()
        if isinstance(result, Exception):
            raise result
        found[number] = result
    return [found[number] for number in range(len(calls))]


def _write(checkpoint: str, rank: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / "a.bin").write_bytes(content(checkpoint, rank, "a"))
        (folder / "deep").mkdir()
        (folder / "deep/b.bin").write_bytes(content(checkpoint, rank, "b"))

    return write


def _check(found: Checkpoint, name: str) -> None:
    assert len(found.shards) == SIZE
    for rank, shard in enumerate(found.shards):
        assert (shard / "a.bin").read_bytes() == content(name, rank, "a")
        assert (shard / "deep/b.bin").read_bytes() == content(name, rank, "b")


def forked(work: Callable[[Callable[[str], None]], None]) -> tuple[int, int]:
    """Run `work` in a child process; return its id, and where what it reports can be read."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    code = 1
    try:
        with suppress(KeyboardInterrupt):
            work(lambda line: (os.write(writing, f"{line}\n".encode()), None)[1])
            code = 0
    finally:
        os._exit(code)


def reported(reading: int) -> list[str]:
    """Return what a child reported, once it is gone."""
    with os.fdopen(reading) as stream:
        return stream.read().splitlines()
