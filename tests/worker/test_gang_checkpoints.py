"""Several workers and their checkpoints: each writes its part, and all go on from the same."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from orchestrator.adapters.artifacts import FsspecArtifactStore
from orchestrator.adapters.clock import SystemClock
from orchestrator.core.errors import ArtifactError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, Message, Points, Resumed, Saved, Succeeded
from orchestrator.worker.checkpoint_writer import Save
from tests.interposed import Interposed
from tests.worker.conftest import Bench

SAVES = """
    import threading
    failed, choose = threading.Event(), threading.Event()

    def job(ctx, *, steps=0):
        begin = ctx.latest_checkpoint()
        if begin:
            said = [(p.parent.name and p.name, (p / "w").read_text()) for p in begin.shards]
            ctx.log(f"from {begin.step}: {said}")
        first = begin.step if begin else 0
        for step in range(first + 1, first + steps + 1):
            text = f"{step} by {ctx.rank} of {ctx.world_size}"
            ctx.save_checkpoint(
                step, lambda folder, text=text: (folder / "w").write_text(text)
            )

    def rank_0_alone_writes(ctx):
        ctx.save_checkpoint(1, lambda f: (f / "w").write_text("x") if ctx.rank == 0 else None)

    def rank_0_alone_saves(ctx):
        if ctx.rank == 0:
            ctx.save_checkpoint(1, lambda f: (f / "w").write_text("x"))

    def rank_1_fails(ctx):
        def write(folder):
            if ctx.rank == 0:
                assert failed.wait(10)
            (folder / "w").write_text("x")
        ctx.save_checkpoint(1, write)
        if ctx.rank == 1:
            failed.set()
            raise ValueError("bad")

    def rank_1_cannot_write(ctx):
        def write(folder):
            raise ValueError("no part")
        ctx.save_checkpoint(1, write)

    def asks(ctx):
        ctx.log("begun")
        ctx.latest_checkpoint()
    """


class LeapingClock:
    """A clock on which every wait is long."""

    def __init__(self) -> None:
        self._times = itertools.count(1000.0, 60.0)

    def now(self) -> float:
        return next(self._times)

    def monotonic(self) -> float:
        return self.now()

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(0.001)


@pytest.fixture(autouse=True)
def real_clock(bench: Bench) -> None:
    bench.clock = SystemClock()


def run(bench: Bench, size: int = 2, job: str = "job", **changes: object) -> list[list[Message]]:
    """Run all workers of a gang, each in a thread, the last of them first."""
    bench.write(SAVES)
    return bench.together(bench.request(job, needs=Needs(workers=size), **changes))


def alone(bench: Bench, rank: int, job: str, size: int = 2) -> Failure:
    """Run one worker of a gang of which the others don't come."""
    failure = bench.failure(SAVES, rank=rank, job=job, needs=Needs(workers=size))
    assert isinstance(failure, Failure)
    return failure


def lines(messages: Sequence[Message]) -> list[str]:
    return [message.text for message in messages if isinstance(message, LogLine)]


def test_every_worker_writes_its_part_and_all_go_on_from_the_whole(bench: Bench) -> None:
    first = run(bench, params={"steps": 2})
    assert all(isinstance(messages[-1], Succeeded) for messages in first), first
    assert [m for m in first[0] if isinstance(m, Saved)] == [Saved(1), Saved(2)]
    assert not [m for m in first[1] if isinstance(m, Saved | Points)]
    again = run(bench, params={"steps": 0}, attempt=2)
    expected = "from 2: [('rank-0', '2 by 0 of 2'), ('rank-1', '2 by 1 of 2')]"
    assert [lines(messages) for messages in again] == [[expected], [expected]]
    assert [m for m in again[0] if isinstance(m, Resumed)] == [Resumed(2)]
    assert not [m for m in again[1] if isinstance(m, Resumed)]


def test_the_number_of_workers_may_change_from_attempt_to_attempt(bench: Bench) -> None:
    for attempt, size in enumerate((2, 1, 3, 1), 1):
        said = run(bench, size, params={"steps": 1}, attempt=attempt)
    assert lines(said[0]) == [
        "from 3: [('rank-0', '3 by 0 of 3'), ('rank-1', '3 by 1 of 3'), ('rank-2', '3 by 2 of 3')]"
    ]


def test_it_is_the_same_where_nothing_can_be_renamed(bench: Bench, tmp_path: Path) -> None:
    bench.store = FsspecArtifactStore(f"memory://{uuid.uuid4().hex}", tmp_path / "scratch")
    run(bench, params={"steps": 5})
    assert bench.checkpoints() == ["3-3-1", "4-3-1", "5-3-1"]
    torn = bench.store._base.removeprefix("memory:/") + "/checkpoints/r2-1/train/"
    MemoryFileSystem().rm_file(f"{torn}step-0000000005-0003-0001/rank-1/w")
    said = run(bench, attempt=2, params={"steps": 2})
    expected = "from 4: [('rank-0', '4 by 0 of 2'), ('rank-1', '4 by 1 of 2')]"
    assert [lines(messages) for messages in said] == [[expected], [expected]]
    assert bench.checkpoints() == ["4-3-1", "5-3-2", "6-3-2"]
    assert MemoryFileSystem().find(f"{torn}acknowledged") == []
    assert not list((tmp_path / "scratch").glob("checkpoints*"))


def test_a_worker_may_have_nothing_to_write(bench: Bench) -> None:
    run(bench, job="rank_0_alone_writes")
    assert lines(run(bench, attempt=2)[1]) == ["from 1: [('rank-0', 'x')]"]


def test_no_acknowledgement_is_left(bench: Bench) -> None:
    run(bench, 3, params={"steps": 4})
    assert bench.store.names("checkpoints/r2-1/train/acknowledged") == []
    assert bench.checkpoints() == ["2-3-1", "3-3-1", "4-3-1"]


def test_acknowledgements_of_those_before_are_removed_and_others_left(bench: Bench) -> None:
    folder = "checkpoints/r2-1/train/acknowledged"
    stale, later = "step-0000000007-0003-0001", "step-0000000007-0004-0001"
    for name in (f"{stale}/1", f"{stale}-last", f"{later}/1", "else"):
        bench.store.mark(f"{folder}/{name}", "{}")
    run(bench, attempt=2, params={"steps": 1})
    assert bench.store.names(folder) == ["else", later]


def test_a_worker_that_is_faster_than_rank_0_is_heard(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    tidy, acknowledged = Save.tidy, threading.Event()

    def late(self: Save, *, sealed: bool = False) -> None:
        if not sealed:
            name = "checkpoints/r2-1/train/acknowledged/step-0000000001-0003-0001/1"
            while bench.store.marked(name) is None:
                acknowledged.wait(0.01)
        tidy(self, sealed=sealed)

    monkeypatch.setattr(Save, "tidy", late)
    first, second = run(bench, params={"steps": 1})
    assert isinstance(first[-1], Succeeded)
    assert isinstance(second[-1], Succeeded)
    assert bench.checkpoints() == ["1-3-1"]


# --- the others don't come ----------------------------------------------------------------------


def test_a_part_that_does_not_come_in_time_is_named(bench: Bench) -> None:
    bench.clock = LeapingClock()
    failure = alone(bench, 0, "rank_0_alone_saves")
    assert failure.evidence == (
        "worker 1 has not written its part of the checkpoint of step 1, and nothing of it has "
        "moved for 600 s; look whether all workers reach the storage, and make the same calls for "
        "checkpoints"
    )
    assert failure.kind is FailureKind.STORAGE
    assert bench.checkpoints() == ["1-3-1"]
    with pytest.raises(ArtifactError):
        bench.store.manifest("checkpoints/r2-1/train/step-0000000001-0003-0001")


def test_a_part_whose_list_of_files_is_torn_is_no_part(bench: Bench) -> None:
    name = "checkpoints/r2-1/train/acknowledged/step-0000000001-0003-0001/1"
    for text in ("{", "[]", '{"a": 1}', '{"a": ["x", "y"]}'):
        bench.store.mark(name, text)
        failure = alone(bench, 0, "rank_0_alone_saves")
        bench.store.remove("checkpoints/r2-1/train")
        assert failure.evidence == f"{name!r} is no list of files; save again"
        assert failure.kind is FailureKind.DATA


def test_a_choice_that_rank_0_does_not_make_in_time_is_named(bench: Bench) -> None:
    bench.clock = LeapingClock()
    failure = alone(bench, 1, "asks")
    assert failure.evidence.startswith(
        "rank 0 has not said which checkpoint to go on from, and nothing of it has moved for 600 s"
    )
    assert failure.kind is FailureKind.STORAGE


def test_a_worker_that_was_given_up_does_not_wait_for_the_others(bench: Bench) -> None:
    bench.write(SAVES)
    batches = bench.stream(bench.request("asks", needs=Needs(workers=2)), rank=1)
    assert next(batches) == [LogLine(1, "begun")]
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name == "r2-1/train/1"]


# --- a worker fails -----------------------------------------------------------------------------


def test_a_worker_that_fails_waits_until_the_checkpoint_is_whole(bench: Bench) -> None:
    said = run(bench, job="rank_1_fails")
    assert isinstance(said[1][-1], Failed)
    assert said[1][-1].failure.evidence == "ValueError: bad"
    assert isinstance(said[0][-1], Succeeded)
    assert bench.store.manifest("checkpoints/r2-1/train/step-0000000001-0003-0001")


def test_it_does_not_wait_for_ever(bench: Bench) -> None:
    bench.clock = LeapingClock()
    assert alone(bench, 1, "rank_1_fails").evidence == "ValueError: bad"


def test_it_does_not_wait_where_its_own_part_is_missing(bench: Bench) -> None:
    assert alone(bench, 1, "rank_1_cannot_write").evidence == "ValueError: no part"


def test_it_does_not_wait_where_nobody_can_say(bench: Bench) -> None:
    def away(_name: str) -> None:
        raise ArtifactError("the store is away")

    bench.store = Interposed(bench.store, manifest=away)  # type: ignore[assignment]
    assert alone(bench, 1, "rank_1_fails").evidence == "ValueError: bad"


def test_all_workers_go_on_from_the_same_checkpoint_of_the_run_that_they_continue(
    bench: Bench,
) -> None:
    run(bench, params={"steps": 3})
    new = {"run": "r2-2", "continues": "checkpoints/r2-1/train"}
    said = run(bench, params={"steps": 1}, size=3, **new)
    assert all(lines(messages)[0].startswith("from 3: ") for messages in said), said
    assert [m for m in said[0] if isinstance(m, Resumed | Saved)] == [Resumed(3), Saved(4)]
