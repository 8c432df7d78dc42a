"""The terminal of a command, which may be closed, full, slow, or know few signs.

A command that drives a run prints through a thread of its own: neither a reader that has stopped
nor one that is slow holds the run up. What a terminal that is gone should have shown goes to a
file. Any other command ends when nobody reads it any more, as commands do.
"""

from __future__ import annotations

import codecs
import errno
import os
import queue
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO, cast

MOST_CHARACTERS = 4_000_000  # that wait for a slow reader
LEFT_OUT = "\n[some lines were left out: the terminal was too slow]\n"
GONE = frozenset({errno.EPIPE, errno.EIO, errno.ESTALE, errno.ENXIO, errno.EBADF})
PLAIN = "orchestrator.plain"
_PLAIN = {
    "✓": "ok",
    "✔": "ok",
    "✗": "x",
    "✘": "x",
    "→": "->",
    "←": "<-",
    "…": "...",
    "•": "*",
    "·": "-",
    "≥": ">=",
    "≤": "<=",
    "±": "+-",
    "µ": "u",
}


def _plainly(error: UnicodeError) -> tuple[str, int]:
    """Write what an encoding lacks in signs that all have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(sign, "?") for sign in lacking), error.end


codecs.register_error(PLAIN, _plainly)


@contextmanager
def any_encoding() -> Iterator[None]:
    """Let what is printed never fail for an encoding that lacks a sign."""
    before = [(s, s.errors) for s in (sys.stdout, sys.stderr) if hasattr(s, "reconfigure")]
    for stream, _ in before:
        stream.reconfigure(errors=PLAIN)
    try:
        yield
    finally:
        for stream, errors in before:
            with suppress(ValueError, OSError):  # closed, or with a rest that can't be written
                stream.reconfigure(errors=errors)


class Terminal:
    """Where a command prints that goes on whatever becomes of its terminal."""

    def __init__(self) -> None:
        """Print nothing yet."""
        self._spare: Path | None = None
        self._turned_away: set[int] = set()
        self._waiting: queue.SimpleQueue[tuple[TextIO, str] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._characters = 0
        self._behind = False
        self._thread = threading.Thread(target=self._work, name="terminal", daemon=True)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Stand in for standard output and error."""
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = (
            cast("TextIO", _PrintedStream(self, stream)) if stream is not None else stream
            for stream in before
        )
        self._thread.start()
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            self._waiting.put(None)
            with suppress(KeyboardInterrupt):  # nobody wants the rest
                self._thread.join()
            for stream in before:
                if stream is not None and not _flushed(stream):
                    self._turn_away(stream)

    def spare(self, path: Path) -> None:
        """Have what could not be shown written to `path` from now on."""
        with self._lock:
            self._spare = path
            for broken in self._turned_away:
                self._redirect(broken)

    def write(self, stream: TextIO, text: str) -> None:
        """Have `text` printed; it is left out where too much waits already."""
        with self._lock:
            most = MOST_CHARACTERS // 2 if self._behind else MOST_CHARACTERS
            full = self._characters + len(text) > most
            if full and self._behind:
                return
            text = LEFT_OUT if full else text
            self._behind = full
            self._characters += len(text)
        self._waiting.put((stream, text))

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            stream, text = item
            self._print(stream, text)
            with self._lock:
                self._characters -= len(text)

    def _print(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            if error.errno in GONE:
                self._turn_away(stream)
        except ValueError:
            return  # it is closed

    def _turn_away(self, stream: TextIO) -> None:
        """Let what is written there from now on, and what could not be, go to the file."""
        with suppress(OSError, ValueError):
            broken = stream.fileno()
            with self._lock:
                self._turned_away.add(broken)
                self._redirect(broken)
            stream.flush()

    def _redirect(self, broken: int) -> None:
        with suppress(OSError):
            terminal = self._open()
            os.dup2(terminal, broken)
            os.close(terminal)

    def _open(self) -> int:
        if self._spare is not None:
            with suppress(OSError):
                self._spare.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                return os.open(self._spare, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        return os.open(os.devnull, os.O_WRONLY)


def _flushed(stream: TextIO) -> bool:
    try:
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


class _PrintedStream:
    """A stream that is printed by a terminal's thread."""

    def __init__(self, terminal: Terminal, stream: TextIO) -> None:
        self._terminal, self._stream = terminal, stream

    def write(self, text: str) -> int:
        """Have `text` printed."""
        if text:
            self._terminal.write(self._stream, text)
        return len(text)

    def writelines(self, lines: Iterator[str]) -> None:
        """Have `lines` printed."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Do nothing: what is printed is flushed."""

    def isatty(self) -> bool:
        """Whether it is a terminal; one that is gone is none."""
        try:
            return self._stream.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> object:
        """Be the stream in all else."""
        return getattr(self._stream, name)


terminal: Terminal | None = None


@contextmanager
def lasting() -> Iterator[None]:
    """Go on whatever becomes of the terminal."""
    global terminal  # noqa: PLW0603 - a process has one
    terminal = Terminal()
    try:
        with terminal.in_place():
            yield
    finally:
        terminal = None


def spare(path: Path) -> None:
    """Have what a broken terminal should show written to the file `path`."""
    if terminal is not None:
        terminal.spare(path)
