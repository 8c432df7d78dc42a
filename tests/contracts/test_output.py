"""What every database must remember of the output of attempts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestrator.adapters.database import SqlDatabase
from orchestrator.core.errors import UnstorableError
from orchestrator.messages import Progress
from orchestrator.ports import LogChunk
from tests.contracts.test_database import store  # noqa: F401 - the fixture


def chunk(at: float, text: str, stage: str = "s", attempt: int = 1) -> LogChunk:
    return LogChunk(stage=stage, attempt=attempt, at=at, text=text)


def test_chunks_come_back_in_order_each_once(store: SqlDatabase) -> None:  # noqa: F811 - the fixture
    chunks = [
        chunk(1.0, "a\n"),
        chunk(1.0, "b\n", "t"),
        chunk(2.0, "c \x00 ✓\n"),
        chunk(2.5, "d\n", attempt=2),
    ]
    store.add_log("r2-1", chunks[:2])
    store.add_log("r2-1", chunks)  # the answer to the first try was lost
    stored = store.log_chunks("r2-1")
    assert [(c.stage, c.attempt, c.at, c.text) for c in stored] == [
        ("s", 1, 1.0, "a\n"),
        ("t", 1, 1.0, "b\n"),
        ("s", 1, 2.0, "c \\x00 ✓\n"),
        ("s", 2, 2.5, "d\n"),
    ]
    assert store.log_chunks("r2-1", stored[1].id) == stored[2:]
    assert store.log_chunks("r2-1", stage="s", attempt=1) == [stored[0], stored[2]]
    ends = {("s", 1): stored[2].id, ("t", 1): stored[1].id, ("s", 2): stored[3].id}
    assert store.log_ends("r2-1") == ends
    assert store.log_chunks("r2") == []
    with pytest.raises(UnstorableError):
        store.add_log("nobody", chunks)


def test_a_page_stands_for_the_chunks_up_to_its_id(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.add_log("r2-1", [chunk(at, f"{at}\n") for at in (1.0, 2.0, 3.0)])
    store.add_log("r2-1", [chunk(2.0, "other\n", "t")])
    first, second, third, other = store.log_chunks("r2-1")
    page = replace(second, text="", page="logs/one")
    store.page_log("r2-1", page)
    assert store.log_chunks("r2-1") == [page, third, other]
    last = replace(third, text="", page="logs/two")
    store.page_log("r2-1", last)
    assert store.log_chunks("r2-1") == [page, last, other], "a page is not swallowed by the next"
    assert store.log_ends("r2-1")["s", 1] == third.id
    assert first.id < second.id


def test_reports_and_progress_are_what_was_said_last(store: SqlDatabase) -> None:  # noqa: F811 - as above
    store.note_report("r2-1", ("s", 1), "b.md", "draft")
    store.note_report("r2-1", ("s", 1), "b.md", "done")
    store.note_report("r2-1", ("s", 1), "a.csv", "1,2")
    assert list(store.reports("r2-1", "s", 1).items()) == [("a.csv", "1,2"), ("b.md", "done")]
    assert store.reports("r2-1", "s", 2) == {}
    store.note_progress("r2-1", ("s", 1), Progress(1, 10))
    store.note_progress("r2-1", ("s", 1), Progress(2**40, 2**41))
    assert store.progress("r2-1") == {("s", 1): Progress(2**40, 2**41)}
