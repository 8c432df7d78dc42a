"""Where a command prints that goes on whatever becomes of its terminal."""

from __future__ import annotations

import io
import os
import sys
import threading
from pathlib import Path

import pytest

from orchestrator.display import terminal
from orchestrator.display.terminal import LEFT_OUT, MOST_CHARACTERS, PLAIN, Terminal


class Slow(io.StringIO):
    """A terminal that shows nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def write(self, text: str) -> int:
        assert self.go.wait(30.0)
        return super().write(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [("✔ done → next", b"ok done -> next"), ("r2 … é \ud83d", b"r2 ... ? ?")],
)
def test_signs_that_an_encoding_lacks_are_written_in_others(text: str, shown: bytes) -> None:
    assert text.encode("ascii", PLAIN) == shown


def test_what_is_printed_comes_in_order_from_both_streams(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", out)
    with terminal.lasting():
        print("one")
        print("two", file=sys.stderr)
        print("three")
    assert sys.stdout is out
    assert out.getvalue() == "one\ntwo\nthree\n"


def test_a_slow_terminal_holds_nobody_up_and_is_told_what_it_missed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow = Slow()
    monkeypatch.setattr(sys, "stdout", slow)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with terminal.lasting():
        for _ in range(6):
            print("x" * (MOST_CHARACTERS // 4))
        slow.go.set()
    shown = slow.getvalue()
    assert shown.count(LEFT_OUT) == 1
    assert len(shown) <= MOST_CHARACTERS + len(LEFT_OUT)


def test_what_a_terminal_that_is_gone_should_have_shown_is_in_a_file(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream, spare = os.fdopen(writing, "w"), tmp_path / "run/output.txt"
    made = Terminal()
    made._print(stream, "nobody sees it\n")
    made.spare(spare)
    made._print(stream, "it is kept\n")
    stream.close()
    assert spare.read_text() == "it is kept\n"
