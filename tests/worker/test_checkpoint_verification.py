"""Each worker of a gang hashes its own part of a checkpoint, when it is saved and when it is read.

Whoever finds its part damaged, all of them go on from the one before.
"""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import pytest

from orchestrator.adapters.artifacts import checking
from orchestrator.adapters.clock import SystemClock
from orchestrator.core.errors import DamagedError, StorageError
from orchestrator.core.failures.kinds import FailureKind
from orchestrator.core.spec.stages import Needs
from orchestrator.messages import Failed, LogLine, Message, Resumed, Succeeded
from orchestrator.worker import checkpoint_verification as module
from tests.interposed import Interposed
from tests.worker.conftest import Bench
from tests.worker.test_gang_checkpoints import lines

JOB = """
    def job(ctx, *, steps=0):
        begin = ctx.latest_checkpoint()
        if begin:
            ctx.log(f"from {begin.step}: {len(begin.shards)} parts")
        first = begin.step if begin else 0
        for step in range(first + 1, first + steps + 1):
            text = f"{step} by {ctx.rank} of {ctx.world_size}"
            ctx.save_checkpoint(step, lambda folder, text=text: (folder / "w").write_text(text))
    """
PART_FILE = re.compile(r"(rank-\d+)/w$")
METHODS = ("part", "add", "seal", "load", "manifest", "mark", "marked", "names", "remove")
worker = threading.local()


class Serial:
    """Does at once, in the thread that asks, what a pool of threads would do."""

    def __init__(self, _threads: int) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def map(self, call: Callable[[str], Any], of: Iterable[str]) -> Iterator[Any]:
        return map(call, of)


def _note(event: str, args: Sequence[object]) -> None:
    if event == "open" and getattr(worker, "opened", None) is not None:
        found = PART_FILE.search(str(args[0]))
        if found:
            worker.opened.append((worker.rank, found[1]))


sys.addaudithook(_note)  # it can't be taken away, and does nothing in other threads


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Return pairs of a worker and a part of which it opens a file through its store."""
    monkeypatch.setattr(checking, "ThreadPoolExecutor", Serial)
    return []


def run(
    bench: Bench, opened: list[tuple[int, str]], size: int = 2, **changes: object
) -> list[list[Message]]:
    """Run all workers of a gang, each with a store of its own; by rank."""
    bench.write(JOB)
    request = bench.request("job", needs=Needs(workers=size), **changes)
    said: list[list[Message]] = [[] for _ in range(size)]

    def work(rank: int) -> None:
        def before(*_given: object, **_named: object) -> None:
            worker.rank, worker.opened = rank, opened

        store: Any = Interposed(bench.store, **dict.fromkeys(METHODS, before))
        for batch in replace(bench, store=store, clock=SystemClock()).stream(request, rank):
            said[rank].extend(batch)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return said


def test_no_worker_opens_what_another_has_written_to_save_or_to_go_on(
    bench: Bench, opened: list[tuple[int, str]]
) -> None:
    run(bench, opened, 3, params={"steps": 2})
    assert {*opened} == {(rank, f"rank-{rank}") for rank in range(3)}
    opened.clear()
    said = run(bench, opened, 3, attempt=2)
    assert sorted(opened) == [(rank, f"rank-{rank}") for rank in range(3)]
    assert [m for m in said[0] if isinstance(m, Resumed)] == [Resumed(2)]


@pytest.mark.parametrize(
    ("size", "shares"),
    [
        (1, [(0, "rank-0"), (0, "rank-1"), (0, "rank-2")]),
        (2, [(0, "rank-0"), (0, "rank-2"), (1, "rank-1")]),
        (4, [(0, "rank-0"), (1, "rank-1"), (2, "rank-2")]),
    ],
)
def test_another_number_of_workers_shares_the_parts(
    bench: Bench, opened: list[tuple[int, str]], size: int, shares: list[tuple[int, str]]
) -> None:
    run(bench, opened, 3, params={"steps": 1})
    opened.clear()
    run(bench, opened, size, attempt=2)
    assert sorted(opened) == shares


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_a_part_that_is_damaged_is_found_and_all_go_on_from_the_one_before(
    bench: Bench, opened: list[tuple[int, str]], rank: int
) -> None:
    run(bench, opened, 3, params={"steps": 3})
    for step in (2, 3):
        (bench.folder_of(step) / f"rank-{rank}/w").write_text("3 by x of 3")
    said = run(bench, opened, 3, attempt=2)
    assert all(lines(messages)[0].startswith("from 1: ") for messages in said), said
    assert bench.store.names("checkpoints/r2-1/train/verified") == []


def test_so_it_is_for_what_is_taken_from_an_earlier_run(
    bench: Bench, opened: list[tuple[int, str]]
) -> None:
    run(bench, opened, 2, params={"steps": 2})
    (bench.folder_of(2) / "rank-1/w").write_text("2 by x of 2")
    opened.clear()
    new = {"run": "r2-2", "continues": "checkpoints/r2-1/train"}
    said = run(bench, opened, 2, **new)
    assert all(lines(messages)[0].startswith("from 1: ") for messages in said), said
    assert {*opened} == {(0, "rank-0"), (1, "rank-1")}


def test_a_storage_that_refuses_one_worker_ends_all_by_its_storage(bench: Bench) -> None:
    run(bench, [], 2, params={"steps": 1})
    load = bench.store.load

    def refuse(name: str, *, mine: Callable[[str], bool] | None = None) -> object:
        if mine is not None and mine("rank-1/w"):
            raise StorageError("artifact: Input/output error")
        return load(name, mine=mine)

    bench.store.load = refuse  # type: ignore[assignment, method-assign]
    outcomes = [messages[-1] for messages in run(bench, [], 2, attempt=2)]
    failures = [outcome.failure for outcome in outcomes if isinstance(outcome, Failed)]
    assert [failure.kind for failure in failures] == [FailureKind.STORAGE] * 2
    assert failures[0].evidence == "worker 1: artifact: Input/output error"


def test_whoever_takes_long_shows_that_it_is_at_work(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LINGER_SECONDS", 0.0)
    monkeypatch.setattr(module, "POLL_SECONDS", 0.001)
    run(bench, [], 2, params={"steps": 1})
    load, mark, marks, at_work = bench.store.load, bench.store.mark, [], threading.Event()
    signs = {f"/1-at-work-{moves}" for moves in range(1, 4)}
    shown = {str(moves) for moves in range(1, 4)}

    def slow(name: str, *, mine: Callable[[str], bool] | None = None) -> object:
        assert at_work.wait(10)
        return load(name, mine=mine)

    def noted(name: str, text: str) -> None:
        marks.append(text if name.endswith("-open") else name[name.rindex("/") :])
        mark(name, text)
        if signs | shown <= {*marks}:
            at_work.set()

    bench.store.load, bench.store.mark = slow, noted  # type: ignore[assignment, method-assign]
    assert all(isinstance(m[-1], Succeeded) for m in run(bench, [], 2, attempt=2))


def test_a_mark_of_another_form_is_no_word_of_a_worker(bench: Bench) -> None:
    run(bench, [], 2, params={"steps": 1})
    checkpoint = "checkpoints/r2-1/train/step-0000000001-0003-0001"
    for other in ("1", "1-", "x-intact", "1-intact-", "1-at-work-7", "-1-intact"):
        bench.store.mark(f"checkpoints/r2-1/train/verified/0003-0002/{checkpoint}/{other}", "x")
        assert module._outcomes([other]) == {}
    said = run(bench, [], 2, attempt=2)
    assert next(m.text for m in said[1] if isinstance(m, LogLine)).startswith("from 1: ")


def test_what_is_damaged_is_read_by_nobody(bench: Bench) -> None:
    run(bench, [], 2, params={"steps": 1})
    (bench.folder_of(1) / "rank-1/w").write_text("1 by x of 2")
    with pytest.raises(DamagedError):
        bench.store.load("checkpoints/r2-1/train/step-0000000001-0003-0001")
    assert [lines(messages) for messages in run(bench, [], 2, attempt=2)] == [[], []]
