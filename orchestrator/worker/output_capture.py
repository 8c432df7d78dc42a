"""What a job prints, line by line, while it runs.

`sys.stdout` and `sys.stderr` belong to the process, and a process can run several attempts and
a terminal besides. So a line goes to the attempt whose thread printed it; threads that a job
started count as the job's as long as it is alone; all else goes where it went before.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self, TextIO, cast

LONGEST_LINE = 10_000
_STREAMS = ("stdout", "stderr")


class _Lines:
    """Turns what is written into lines; each thread and stream has a line of its own."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self._sink = sink
        self._lock = threading.RLock()  # what is freed meanwhile may print
        self._begun: dict[tuple[str, int], str] = {}
        self.strangers = {thread.ident for thread in threading.enumerate()}

    def write(self, stream: str, text: str) -> None:
        key = (stream, threading.get_ident())
        with self._lock:
            *whole, rest = (self._begun.get(key, "") + text).split("\n")
            while len(rest) > LONGEST_LINE:
                whole, rest = [*whole, rest[:LONGEST_LINE]], rest[LONGEST_LINE:]
            self._begun[key] = rest
            for line in whole:
                self._say(line)

    def free(self) -> None:
        """Forget who holds the lock."""
        self._lock = threading.RLock()

    def close(self) -> None:
        """Say what has no end of line."""
        with self._lock:
            for rest in self._begun.values():
                if rest:
                    self._say(rest)
            self._begun.clear()

    def _say(self, line: str) -> None:
        """Say a line as a terminal would leave it: a carriage return begins it anew."""
        self._sink(line.rstrip("\r").rpartition("\r")[2][:LONGEST_LINE])


class _Router:
    """Stands in for `sys.stdout` or `sys.stderr` while an attempt runs."""

    def __init__(self, name: str, original: TextIO) -> None:
        self._name = name
        self._original = original

    def write(self, text: str) -> int:
        lines = _lines_of(threading.get_ident())
        if lines is None:
            return self._original.write(text)
        lines.write(self._name, text)
        return len(text)

    def close(self) -> None:
        """Close it for others than jobs: it is the process', and another's too."""
        if _lines_of(threading.get_ident()) is None:
            self._original.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def isatty(self) -> bool:
        return _lines_of(threading.get_ident()) is None and self._original.isatty()

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the stream has
        return getattr(self._original, name)


_lock = threading.RLock()
_registered: list[bool] = []
_running: dict[int, _Lines] = {}
_originals: dict[str, tuple[TextIO, _Router]] = {}


def _lines_of(thread: int) -> _Lines | None:
    with _lock:
        if thread in _running:
            return _running[thread]
        alone = next(iter(_running.values())) if len(_running) == 1 else None
    return alone if alone is not None and thread not in alone.strangers else None


@contextmanager
def capture(sink: Callable[[str], None]) -> Iterator[None]:
    """Give each line that this thread prints to `sink`."""
    lines = _Lines(sink)
    thread = threading.get_ident()
    with _lock:
        _running[thread] = lines
        if len(_running) == 1:
            _install()
    try:
        yield
    finally:
        with _lock:
            del _running[thread]
            if not _running:
                _restore()
        lines.close()


def _free_locks() -> None:
    """Free the locks in a child process: who held one is not there to give it back."""
    global _lock  # noqa: PLW0603 - of the process, and this is another one
    _lock = threading.RLock()
    for lines in _running.values():
        lines.free()


def _install() -> None:
    if not _registered:
        _registered.append(True)
        os.register_at_fork(after_in_child=_free_locks)
    for name in _STREAMS:
        original = getattr(sys, name)
        router = _Router(name, original)
        _originals[name] = (original, router)
        setattr(sys, name, cast("TextIO", router))


def _restore() -> None:
    for name, (original, router) in _originals.items():
        if getattr(sys, name, router) is router:  # a job may have deleted it
            setattr(sys, name, original)
    _originals.clear()
