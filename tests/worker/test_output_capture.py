"""Printed lines go to the attempt that printed them, and nowhere else."""

from __future__ import annotations

import io
import sys
import threading

import pytest

from orchestrator.messages import LogLine, Progress, Succeeded
from orchestrator.worker.message_queue import MOST_LINES, MessageQueue
from orchestrator.worker.output_capture import LONGEST_LINE, capture
from tests.worker.conftest import Bench


def in_thread(*targets: object) -> None:
    threads = [threading.Thread(target=target) for target in targets]  # type: ignore[arg-type]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)


def test_prints_errors_and_warnings_of_a_job_become_lines(bench: Bench) -> None:
    lines = bench.lines("""
        import logging, sys
        def job(ctx):
            print("out")
            print("err", file=sys.stderr)
            logger = logging.getLogger(__name__)
            logger.addHandler(logging.StreamHandler())
            logger.warning("careful")
            sys.stdout.flush()
            sys.stdout.write("no end")
        """)
    assert lines == ["out", "err", "careful", "no end"]


def test_a_thread_of_a_job_prints_to_the_job(bench: Bench) -> None:
    lines = bench.lines("""
        import threading
        def job(ctx):
            thread = threading.Thread(target=print, args=("from a thread",))
            thread.start()
            thread.join()
        """)
    assert lines == ["from a thread"]


def test_the_terminal_of_the_process_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    captured: list[str] = []
    inside, outside = threading.Event(), threading.Event()

    def attempt() -> None:
        with capture(captured.append):
            inside.set()
            outside.wait(10)
            print("job")
            assert not sys.stdout.isatty()

    thread = threading.Thread(target=attempt)
    thread.start()
    inside.wait(10)
    print("terminal")
    assert sys.stdout.isatty() is False
    assert sys.stdout.encoding.lower() == "utf-8"
    outside.set()
    thread.join(10)
    print("after")
    assert capsys.readouterr().out == "terminal\nafter\n"
    assert captured == ["job"]


def test_two_attempts_at_once_keep_their_lines_apart(capsys: pytest.CaptureFixture[str]) -> None:
    both = threading.Barrier(2)
    captured: dict[str, list[str]] = {"a": [], "b": []}

    def attempt(name: str) -> None:
        with capture(captured[name].append):
            both.wait(10)
            print(name, end="")
            in_thread(lambda: print("whose?"))
            print(name)
            both.wait(10)

    in_thread(lambda: attempt("a"), lambda: attempt("b"))
    assert captured == {"a": ["aa"], "b": ["bb"]}
    assert capsys.readouterr().out == "whose?\nwhose?\n"


def test_a_stream_that_the_job_replaced_is_left_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    own = io.StringIO()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    with capture(lambda _: None):
        sys.stdout = own
    assert sys.stdout is own


def test_a_progress_bar_leaves_its_last_state() -> None:
    captured: list[str] = []
    with capture(captured.append):
        print("10%\r50%\r100%")
        print("windows\r\nend\r")
    assert captured == ["100%", "windows", "end"]


def test_a_line_without_end_is_cut_and_fills_no_memory() -> None:
    captured: list[str] = []
    with capture(captured.append):
        for _ in range(25):
            sys.stdout.write("x" * 1000)
    assert [len(line) for line in captured] == [LONGEST_LINE, LONGEST_LINE, 5000]


def test_lines_that_nobody_reads_are_counted_and_not_kept() -> None:
    outbox = MessageQueue()
    for number in range(MOST_LINES + 3):
        outbox.line(LogLine(2, str(number)))
    *kept, last = outbox.drain()
    assert len(kept) == MOST_LINES
    assert last == LogLine(2, "3 lines were not kept: printed faster than they are read")
    outbox.line(LogLine(2, "again"))
    assert outbox.drain() == [LogLine(2, "again")]


def test_only_the_latest_progress_of_a_batch_is_told_and_the_outcome_last() -> None:
    outbox = MessageQueue()
    for done in range(3):
        outbox.progress(done, 3)
    outbox.finish(Succeeded(None))
    assert outbox.drain() == [Progress(2, 3)]
    assert outbox.last() == [Succeeded(None)], "the same progress is not told twice"


@pytest.mark.parametrize("how", ["sys.stdout.close()", "with sys.stdout: pass", "del sys.stdout"])
def test_a_job_can_not_take_the_output_from_others(
    bench: Bench, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    bench.result(f"""
        import sys
        def job(ctx):
            {how}
        """)
    print("still here")
    assert capsys.readouterr().out == "still here\n"
