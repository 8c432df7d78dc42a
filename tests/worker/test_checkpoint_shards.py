"""A node downloads of a checkpoint what its workers verify, and what their jobs take."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.artifacts.remote_place import RemotePlace
from orchestrator.adapters.clock import SystemClock
from orchestrator.core.artifact import CacheRoom
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, Message
from tests.worker.conftest import Bench

SIZE = 1000  # bytes of a part
WORKERS, NODES = 8, 4
JOB = """
    def job(ctx, *, takes="own"):
        begin = ctx.latest_checkpoint()
        if begin is None:
            ctx.save_checkpoint(1, lambda folder: (folder / "w").write_bytes(b"x" * 1000))
            return
        ctx.log(f"{len(begin.shards)} parts")
        parts = begin.shards if takes == "all" else [begin.shards[ctx.rank]]
        for part in parts:
            assert len((part / "w").read_bytes()) == 1000
    """


@pytest.fixture
def downloaded(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the bytes of parts that came, by the folder of their node."""
    counts: Counter[str] = Counter()
    fetch, one_at_a_time = RemotePlace.fetch, threading.Lock()  # as files in memory have one place

    def count(self: RemotePlace, name: str, path: str, target: Path) -> None:
        with one_at_a_time:
            fetch(self, name, path, target)
        node = next(parent.name for parent in target.parents if parent.name.startswith("node-"))
        counts[node] += target.stat().st_size

    monkeypatch.setattr(RemotePlace, "fetch", count)
    return counts


def run(bench: Bench, base: str, folder: Path, attempt: int, takes: str) -> list[list[Message]]:
    """Run a gang on several nodes, each with a cache of its own; by rank."""
    needs, params = Needs(workers=WORKERS), {"takes": takes}
    request = bench.request("job", needs=needs, attempt=attempt, params=params)
    said: list[list[Message]] = [[] for _ in range(WORKERS)]

    def work(rank: int) -> None:
        room = CacheRoom(str(folder / f"node-{rank * NODES // WORKERS}"))
        store = FsspecArtifactStore(base, attempt=f"{rank}/{attempt}", room=room)
        for batch in replace(bench, store=store, clock=SystemClock()).stream(request, rank):
            said[rank].extend(batch)
        store.release()

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(WORKERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not [messages[-1] for messages in said if isinstance(messages[-1], Failed)]
    return said


def test_a_node_downloads_the_parts_of_its_workers_and_of_rank_0_and_no_more_unless_they_take_more(
    bench: Bench, tmp_path: Path, downloaded: Counter[str]
) -> None:
    base = f"memory://{uuid.uuid4().hex}"
    bench.write(JOB)
    run(bench, base, tmp_path / "first", 1, "own")
    assert not downloaded

    said = run(bench, base, tmp_path / "own", 2, "own")
    assert all(LogLine(rank, "8 parts") in said[rank] for rank in range(WORKERS))
    assert downloaded == {
        f"node-{node}": (WORKERS // NODES + bool(node)) * SIZE for node in range(NODES)
    }
    downloaded.clear()
    run(bench, base, tmp_path / "all", 3, "all")
    assert downloaded == {f"node-{node}": WORKERS * SIZE for node in range(NODES)}
    MemoryFileSystem().rm(f"/{base.removeprefix('memory://')}", recursive=True)
