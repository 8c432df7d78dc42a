"""How workers are read: all at one look, none without end, and none far ahead of its reader."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.adapters.raycluster import gang
from orchestrator.adapters.raycluster.cluster import RayCluster
from orchestrator.adapters.raycluster.gang import BATCHES_AHEAD, Gang
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import LogLine, Message
from orchestrator.ports import Worker
from orchestrator.supervisor.record import wait
from tests.clusters import begin, request
from tests.workers import worker

SECONDS_OF_SILENCE = 2.0


class FakeStream:
    """A remote generator of batches; it has ended when `ends` and all is read."""

    def __init__(self, *batches: Sequence[Message], ends: bool = False, endless: bool = False):
        self._batches = deque(batches)
        self._ends, self._endless = ends, endless

    @property
    def ready(self) -> bool:
        return bool(self._batches) or self._ends

    def __next__(self) -> Sequence[Message]:
        if not self._batches:
            raise StopIteration
        if self._endless:
            self._batches.append(self._batches[0])
        return self._batches.popleft()


class FakeRay:
    """Ray's calls for streams, counted."""

    def __init__(self) -> None:
        self.waits = 0

    def wait(self, streams: list[FakeStream], **_how: object) -> tuple[list[FakeStream], None]:
        self.waits += 1
        return [stream for stream in streams if stream.ready], None

    def get(self, batch: Sequence[Message]) -> Sequence[Message]:
        return batch


def drained(fake: FakeRay, streams: dict[int, FakeStream]) -> list[tuple[int, Message]]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(gang, "ray", fake)
        read: Any = SimpleNamespace(_streams=streams)
        read._batch = lambda rank: Gang._batch(read, rank)
        return list(Gang._drain(read, streams))


def test_all_workers_are_looked_at_at_once() -> None:
    lines = [LogLine(7, "one"), LogLine(7, "two"), LogLine(40, "three")]
    streams = {rank: FakeStream() for rank in range(64)}
    streams[40] = FakeStream((lines[2],))
    streams[7] = FakeStream((lines[0],), (lines[1],), ends=True)
    fake = FakeRay()

    assert drained(fake, streams) == [(7, lines[0]), (40, lines[2]), (7, lines[1])]
    assert fake.waits == 3, "and then once for each batch of whoever says most"
    assert streams.keys() == set(range(64)) - {7}
    assert drained(fake, streams) == []
    assert fake.waits == 4


def test_one_that_speaks_without_end_does_not_keep_the_turn() -> None:
    endless = FakeStream((LogLine(0, "on"),), endless=True)

    assert len(drained(FakeRay(), {0: endless})) == BATCHES_AHEAD


@pytest.fixture
def run() -> Worker:
    return worker


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_nobody_reads_stands_still_goes_on_when_it_is_read_and_leaves_when_asked(
    cluster: RayCluster, tmp_path: Path, workers: int
) -> None:
    said = [tmp_path / f"said-{rank}" for rank in range(workers)]
    needs = Needs(workers=workers)
    aloud = request("count_aloud", f"loud-{workers}", needs=needs, said=str(tmp_path / "said"))
    attempt = begin(cluster, replace(aloud, kill_after=60.0))

    def ahead() -> int:
        lines: Any = attempt.of(LogLine)
        return max(
            path.stat().st_size - sum(line.rank == rank for line in lines)
            for rank, path in enumerate(said)
        )

    def stands_still() -> bool:
        before = [path.stat().st_size for path in said]
        wait(lambda: False, SECONDS_OF_SILENCE)
        return before == [path.stat().st_size for path in said]

    attempt.until(lambda: all(path.exists() for path in said))
    assert wait(stands_still, 30.0)
    assert 0 < ahead() <= BATCHES_AHEAD + 1
    read = len(attempt.said)
    attempt.until(lambda: len(attempt.said) > read + 3 * workers * BATCHES_AHEAD)
    assert wait(stands_still, 30.0)

    cluster.cancel(attempt.key)
    assert wait(lambda: all(path.with_suffix(".left").exists() for path in said), 30.0)
