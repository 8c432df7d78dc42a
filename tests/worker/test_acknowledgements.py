"""Workers say by marks what became of their parts: rank 0 hears them all with few calls."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.clock import SystemClock
from orchestrator.core.errors import StorageError
from orchestrator.core.runs.checkpoint_names import CheckpointId
from orchestrator.core.spec.stages import Needs
from orchestrator.worker import acknowledgements
from orchestrator.worker.acknowledgements import Parts
from orchestrator.worker.checkpoint_writer import Save
from orchestrator.worker.message_queue import MessageQueue
from orchestrator.worker.rank_membership import RankMembership, StuckError
from orchestrator.worker.runtime import AttemptRuntime
from tests.fakes import FakeClock
from tests.worker.conftest import Bench
from tests.worker.counted_calls import counted_calls

_CALLS = ("ls", "cat_file", "pipe_file", "put_file", "rm", "exists", "find", "makedirs", "info")


def members(bench: Bench, size: int, clock: FakeClock | SystemClock) -> list[RankMembership]:
    request = bench.request(needs=Needs(workers=size))
    runtime = AttemptRuntime(bench.store, clock, MessageQueue(), threading.Event())
    return [
        RankMembership(request=request, rank=rank, world_size=size, meta={}, runtime=runtime)
        for rank in range(size)
    ]


def save_of(member: RankMembership, step: int = 1) -> Save:
    def write(folder: Path) -> None:
        (folder / "w").write_text(str(member.rank))

    checkpoint = CheckpointId(step, member.token)
    return Save(member=member, checkpoint=checkpoint, write=write, stall=0.0)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return counted_calls(monkeypatch, _CALLS)


def calls_of_a_save(bench: Bench, calls: Counter[str], scratch: Path, size: int) -> list[int]:
    """Return what rank 0 asks of the storage for one checkpoint, and what all others do."""
    bench.store = FsspecArtifactStore(f"memory://{uuid.uuid4().hex}", scratch)
    first, *others = [save_of(member) for member in members(bench, size, SystemClock())]
    calls.clear()
    for save in others:
        save.run()
    by_others = calls.total()
    first.run()
    manifest = bench.store.manifest(first.member.name(first.checkpoint))
    assert len(manifest.files) == size
    assert bench.store.names(first.member.acknowledged) == []
    return [calls.total() - by_others, by_others]


def test_a_save_asks_little_of_the_storage_however_many_workers_there_are(
    bench: Bench, calls: Counter[str], tmp_path: Path
) -> None:
    small, large = (calls_of_a_save(bench, calls, tmp_path / "s", size) for size in (8, 64))
    assert large[0] - small[0] == 64 - 8  # one read of each worker's mark
    assert small[0] <= 8 + 30
    assert [by_others / workers for by_others, workers in ((small[1], 7), (large[1], 63))] == [
        5.0,  # the fence, its part and its mark, with their folders
        5.0,
    ]


def test_the_first_refusal_is_heard_whoever_is_still_missing(bench: Bench) -> None:
    first, _, third = members(bench, 3, FakeClock())
    checkpoint = CheckpointId(1, first.token)
    acknowledgements.refuse(third, checkpoint, "no room")
    with pytest.raises(StorageError, match="worker 2: no room"):
        Parts(first, checkpoint).gathered(20.0)


def test_those_that_are_missing_are_named(bench: Bench) -> None:
    first, *others = members(bench, 10, FakeClock())
    checkpoint = CheckpointId(1, first.token)
    for member in others[:1]:
        acknowledgements.acknowledge(member, checkpoint, {})
    with pytest.raises(StuckError, match=r"^workers 2, 3, 4, 5, 6 and 3 more have not written"):
        Parts(first, checkpoint).gathered(20.0)


def test_a_mark_that_is_removed_before_it_is_read_is_waited_for(bench: Bench) -> None:
    clock = FakeClock()
    first, second = members(bench, 2, clock)
    checkpoint = CheckpointId(1, first.token)
    marked, listed = bench.store.marked, acknowledgements.acknowledgement(second, checkpoint)
    acknowledgements.acknowledge(second, checkpoint, {})

    class Removing:
        def __getattr__(self, name: str) -> object:
            return getattr(bench.store, name)

        def marked(self, name: str) -> str | None:
            if name == listed and clock.monotonic() == 0.0:
                return None
            return marked(name)

    runtime = AttemptRuntime(Removing(), clock, MessageQueue(), threading.Event())  # type: ignore[arg-type]
    alone = RankMembership(request=first.request, rank=0, world_size=2, meta={}, runtime=runtime)
    assert Parts(alone, checkpoint).gathered(20.0) == {}
    assert clock.monotonic() > 0.0
