"""To go on from a checkpoint asks the storage for listings, not for each worker and each mark."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.core.errors import DamagedError, StorageError
from orchestrator.core.runs.checkpoint_names import CheckpointId, Token
from orchestrator.core.spec.stages import Needs
from orchestrator.worker.checkpoints import Checkpoints
from orchestrator.worker.message_queue import MessageQueue
from orchestrator.worker.rank_membership import RankMembership, StuckError
from orchestrator.worker.runtime import AttemptRuntime
from tests.fakes import FakeClock
from tests.worker.conftest import Bench
from tests.worker.counted_calls import counted_calls

PREFIX = "checkpoints/r2-1/train"
_CALLS = ("ls", "cat_file", "pipe_file", "rm", "exists", "find", "makedirs", "get_file")
_WRITES = ("pipe_file", "rm", "makedirs")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    return counted_calls(monkeypatch, _CALLS)


def member_of(bench: Bench, rank: int, size: int) -> RankMembership:
    """Return worker `rank` of attempt 2."""
    request = bench.request(needs=Needs(workers=size), attempt=2)
    runtime = AttemptRuntime(bench.store, FakeClock(), MessageQueue(), threading.Event())
    return RankMembership(request=request, rank=rank, world_size=size, meta={}, runtime=runtime)


def checkpoint(step: int) -> CheckpointId:
    return CheckpointId(step, Token(3, 1))


def stored(bench: Bench, scratch: Path, *, size: int, count: int) -> None:
    """Have a remote store with `count` checkpoints of attempt 1, of `size` workers."""
    bench.store = FsspecArtifactStore(f"memory://{uuid.uuid4().hex}", scratch)
    bench.store.mark(f"{PREFIX}/claims/0003-0001-anew", "")
    for step in range(1, count + 1):
        folder = bench.store.scratch("checkpoint")
        for rank in range(size):
            (folder / f"rank-{rank}").mkdir()
            (folder / f"rank-{rank}" / "w").write_text(f"{step} by {rank}")
        meta = {"step": str(step), "epoch": "3", "attempt": "1"}
        bench.store.commit(folder, f"{PREFIX}/{checkpoint(step)}", meta)


def say(bench: Bench, rank: int, step: int, finding: str, why: str = "") -> None:
    """Have worker `rank` of attempt 2 say what it found in its part of a checkpoint."""
    name = f"{PREFIX}/{checkpoint(step)}"
    bench.store.mark(f"{PREFIX}/verified/0003-0002/{name}/{rank}-{finding}", why)


def calls_of_rank_0(
    bench: Bench, calls: Counter[str], scratch: Path, *, size: int, count: int
) -> Counter[str]:
    stored(bench, scratch, size=size, count=count)
    for rank in range(1, size):
        say(bench, rank, count, "intact")
    calls.clear()
    chosen = Checkpoints(member_of(bench, 0, size)).latest()
    assert chosen is not None
    assert chosen.step == count
    return +calls


def test_rank_0_asks_as_much_whatever_number_of_checkpoints_and_workers_there_is(
    bench: Bench, calls: Counter[str], tmp_path: Path
) -> None:
    small = calls_of_rank_0(bench, calls, tmp_path / "a", size=2, count=2)
    large = calls_of_rank_0(bench, calls, tmp_path / "b", size=12, count=12)
    assert small == large
    assert {name: small[name] for name in small if name not in _WRITES} == {
        "ls": 5,  # of claims three times: before and after it claims, and when it settles
        "cat_file": 1,  # the manifest
        "get_file": 1,  # its own part
    }


def test_another_worker_asks_by_one_listing_whether_the_choice_was_made(
    bench: Bench, calls: Counter[str], tmp_path: Path
) -> None:
    stored(bench, tmp_path / "s", size=3, count=9)
    bench.store.mark(f"{PREFIX}/claims/0003-0002-open", "0")
    for step in (9, 8):
        bench.store.mark(f"{PREFIX}/claims/0003-0002-proposes-{checkpoint(step)}", "")
    member = member_of(bench, 1, 3)
    adopting, fence, clock = Checkpoints(member), member.fence, member.runtime.clock
    asked: list[Counter[str]] = []

    def settle_after_some(_seconds: float) -> None:
        asked.append(+calls)
        calls.clear()
        if len(asked) == 4:
            fence.settle(checkpoint(8))
            calls.clear()

    clock.sleep = settle_after_some  # type: ignore[method-assign]
    calls.clear()
    adopted = adopting.latest()

    assert adopted is not None
    assert adopted.step == 8
    assert asked[1:] == [{"ls": 1}] * 3, "beside the first time, when it verified its part"
    assert +calls == {"ls": 1, "get_file": 1}, "what rank 0 wrote comes, and its own not again"
    assert bench.store.names(f"{PREFIX}/verified/0003-0002/{PREFIX}/{checkpoint(8)}") == [
        "1-intact"
    ]


@pytest.mark.parametrize(
    ("finding", "kind", "text"),
    [
        ("damaged", DamagedError, "'rank-2/w' is torn"),
        ("away", StorageError, "worker 2: 'rank-2/w' is torn"),
    ],
)
def test_what_one_worker_found_is_heard_before_the_others_are_done(
    bench: Bench, tmp_path: Path, finding: str, kind: type[Exception], text: str
) -> None:
    stored(bench, tmp_path / "s", size=4, count=1)
    say(bench, 2, 1, finding, "'rank-2/w' is torn")
    with pytest.raises(kind, match=f"^{text}$"):
        Checkpoints(member_of(bench, 0, 4))._verified(checkpoint(1))


def test_those_that_do_not_verify_are_named(bench: Bench, tmp_path: Path) -> None:
    stored(bench, tmp_path / "s", size=9, count=1)
    say(bench, 2, 1, "intact")
    with pytest.raises(StuckError, match=r"^workers 1, 3, 4, 5, 6 and 2 more have not verified"):
        Checkpoints(member_of(bench, 0, 9)).latest()
