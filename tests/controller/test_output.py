"""What attempts print reaches the database in the order of its lines, and is read back whole."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from orchestrator.controller.output_recorder import MOST_WAITING, PAGE, SHORT, OutputRecorder
from orchestrator.core.artifact import ArtifactRef
from orchestrator.core.errors import StorageError, StoreError, UnstorableError
from orchestrator.core.failures.kinds import Failure, FailureKind
from orchestrator.error_boundary import BestEffort
from orchestrator.messages import Failed, LogLine, Progress, Report, Succeeded
from orchestrator.output_reader import OutputReader
from orchestrator.ports import LogChunk
from orchestrator.supervisor.record import wait
from tests.fakes import FakeArtifacts, FakeClock
from tests.memory import MemoryStore

DONE = Succeeded(ArtifactRef("file:///a", "d" * 64, 1))


class Flaky(MemoryStore):
    """A database that is away while it has an `error`."""

    error: Exception | None = None

    def add_log(self, run: str, chunks: Sequence[LogChunk]) -> None:
        if self.error and chunks:
            raise self.error
        super().add_log(run, chunks)

    def note_report(self, run: str, place: tuple[str, int], name: str, text: str) -> None:
        if self.error:
            raise self.error
        super().note_report(run, place, name, text)


class Marks(FakeArtifacts):
    """An artifact store that is away while it has an `error`."""

    error: Exception | None = None

    def mark(self, name: str, text: str) -> None:
        if self.error:
            raise self.error
        super().mark(name, text)

    def marked(self, name: str) -> str | None:
        if self.error:
            raise self.error
        return super().marked(name)


class RecorderAndReader:
    """A recorder without its thread, and a reader."""

    def __init__(self) -> None:
        self.store, self.marks, self.clock = Flaky(), Marks(), FakeClock(100.0)
        self.best_effort = BestEffort()
        self.recorder = self.another()
        self.reader = OutputReader(self.store, lambda: self.marks, "run-1")

    def another(self) -> OutputRecorder:
        return OutputRecorder(self.store, self.marks, "run-1", self.clock, self.best_effort)

    def lines(self, *texts: str, stage: str = "s", rank: int = 0) -> None:
        for text in texts:
            self.recorder.observe(stage, 1, LogLine(rank, text))

    def read(self, after: int = 0) -> str:
        return "".join(chunk.text for chunk in self.reader.chunks(after))

    @property
    def untold(self) -> list[str]:
        return [str(untold) for untold in self.best_effort.untold]


@pytest.fixture
def desk() -> RecorderAndReader:
    return RecorderAndReader()


def test_lines_reports_progress_and_the_failure_of_an_attempt_are_kept(
    desk: RecorderAndReader,
) -> None:
    desk.lines("kl_mean: 3")
    for message in (
        Report("p.md", "draft"),
        Report("p.md", "No."),
        Progress(1, 9),
        Progress(2, 9),
    ):
        desk.recorder.observe("s", 1, message)
    failure = Failure(kind=FailureKind.PARITY, evidence="kl_mean is 3", detail="a\nb")
    assert desk.read() == "", "lines are gathered"
    desk.recorder.observe("s", 1, Failed(failure))
    assert desk.read() == "[0] kl_mean: 3\na\nb\nparity: kl_mean is 3\n"
    assert desk.reader.reports("s", 1) == {"p.md": "No."}
    assert desk.store.progress("run-1") == {("s", 1): Progress(2, 9)}


def test_two_writes_at_one_time_of_the_clock_are_two_chunks(desk: RecorderAndReader) -> None:
    desk.lines("a")
    desk.recorder.write()
    desk.lines("b")
    desk.recorder.write()
    first, second = desk.reader.chunks()
    assert first.at < second.at < first.at + 0.001


def test_while_the_database_is_away_lines_wait(desk: RecorderAndReader) -> None:
    desk.store.error = StoreError("locked")
    desk.lines("a")
    assert not desk.recorder.write()
    desk.recorder.observe("s", 1, Report("r", "x"))
    desk.recorder.observe("s", 1, DONE)
    desk.store.error = None
    desk.lines("b")
    assert desk.recorder.write()
    assert desk.read() == "[0] a\n[0] b\n"
    assert desk.reader.reports("s", 1) == {"r": "x"}
    assert desk.untold == []


def test_what_a_database_that_stays_away_never_takes_is_counted(desk: RecorderAndReader) -> None:
    desk.store.error = StoreError("no route to host")
    with desk.recorder:
        desk.lines("a", "b")
        desk.recorder.observe("s", 1, Report("r", "x"))
    assert desk.untold == [
        "2 log lines were not written: no route to host",
        "1 report was not written: no route to host",
    ]


def test_lines_for_which_there_is_no_room_are_counted(desk: RecorderAndReader) -> None:
    desk.store.error = StoreError("locked")
    desk.lines("x" * (MOST_WAITING // 2), "y" * (MOST_WAITING // 2), "z")
    full = "1 log line was not written: it came faster than the database takes lines"
    assert desk.untold == [full]
    desk.store.error = None
    desk.recorder.write()
    desk.lines("room again")
    desk.recorder.write()
    assert desk.read().endswith("[0] z\n[0] room again\n")


def test_what_the_database_refuses_is_counted_and_not_tried_again(desk: RecorderAndReader) -> None:
    desk.store.error = UnstorableError("no text")
    desk.lines("a")
    assert desk.recorder.write()
    desk.store.error = None
    desk.lines("b")
    desk.recorder.write()
    assert desk.read() == "[0] b\n"
    assert desk.untold == ["1 log line was not written: no text"]


def test_a_long_log_becomes_pages_and_reads_as_before(desk: RecorderAndReader) -> None:
    desk.lines("first ✓", "x" * (PAGE // 2))
    desk.recorder.write()
    desk.recorder.page()
    assert not any(chunk.page for chunk in desk.store.log_chunks("run-1"))
    seen = [chunk.id for chunk in desk.reader.chunks()][-1]
    desk.lines("y" * (PAGE // 2), "unseen")
    desk.recorder.write()
    desk.recorder.page()
    desk.lines("last")
    desk.recorder.write()
    page, rest = desk.store.log_chunks("run-1")
    assert page.page
    assert not page.text
    assert rest.text == "[0] last\n"
    whole = desk.read()
    assert whole.startswith("[0] first ✓\n[0] xxx")
    assert whole.endswith("[0] unseen\n[0] last\n")
    assert desk.read(seen).startswith("[0] yyy"), "who had read a part goes on behind it"
    assert desk.reader.tail("s", 1, 12) == "[0] last\n"
    assert desk.reader.tail("s", 1, PAGE * 3) == whole
    assert desk.reader.tail("s", 1, 25) == "[0] unseen\n[0] last\n"


def test_an_attempt_that_has_ended_leaves_the_database_unless_it_was_short(
    desk: RecorderAndReader,
) -> None:
    desk.lines("x" * SHORT)
    desk.lines("short", stage="t")
    for stage in ("s", "t"):
        desk.recorder.observe(stage, 1, DONE)
    desk.recorder.page()
    paged = {chunk.stage: bool(chunk.page) for chunk in desk.store.log_chunks("run-1")}
    assert paged == {"s": True, "t": False}


def test_an_artifact_store_that_is_away_costs_no_line(desk: RecorderAndReader) -> None:
    desk.marks.error = StorageError("503 Slow Down")
    desk.lines("x" * PAGE)
    desk.recorder.write()
    desk.recorder.page()
    assert len(desk.read()) > PAGE
    desk.marks.error = None
    desk.lines("y" * PAGE)
    desk.recorder.write()
    desk.recorder.page()
    (page,) = desk.store.log_chunks("run-1")
    assert page.page
    assert len(desk.read()) > 2 * PAGE
    desk.marks.error = StorageError("no such bucket")
    assert desk.read() == (
        f"{page.page!r} of the artifact store, a part of this log, can't be read here: "
        "no such bucket\n"
    )


def test_a_log_that_two_controllers_have_written_is_one(desk: RecorderAndReader) -> None:
    desk.lines("of the first")
    desk.recorder.write()
    desk.recorder = desk.another()
    desk.clock.step(-60)  # its host's clock is behind
    desk.lines("of the second")
    desk.recorder.write()
    assert desk.read() == "[0] of the first\n[0] of the second\n"


def test_the_thread_writes_what_is_said_without_being_asked(desk: RecorderAndReader) -> None:
    with desk.recorder:
        desk.lines("hello")
        assert wait(lambda: desk.read() == "[0] hello\n", 20.0)
        desk.lines("the end")
    assert desk.read() == "[0] hello\n[0] the end\n"
