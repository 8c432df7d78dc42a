"""What comes by file descriptors 1 and 2, whoever writes: Python, libraries in C++, children.

A worker process of a cluster writes to files of its own, which the cluster keeps. So nothing is
put between: what is new in these files is read, now and then, and what a job prints is written to
them too. Whatever a dying process had still to say stands there, in order, for whoever looks after
it. Where the descriptors are no files (a pipe, a terminal) files without a name take their place,
and what is read is written on to where it was meant for. Secrets of the attempt are blotted out in
those files as soon as they are read.
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from orchestrator.core.text import valid
from orchestrator.node.masking import blotted, hidden

STREAMS = (1, 2)
MOST_BYTES = 1 << 20  # of a stream that are read at once
MOST_BEHIND = 16 << 20  # bytes that a reader may lag behind before it leaves some out
LONGEST_LINE = 10_000
# By these lines a cluster marks in its own files whose they are.
_MARKS = (":job_id:", ":actor_name:", ":task_name:")


@dataclass(slots=True)
class _Stream:
    """A file that is followed: read from `offset` on. `original` is what it stands in for."""

    descriptor: int
    reader: int
    offset: int
    original: int | None = None
    begun: bytes = b""
    secrets: tuple[str, ...] = ()

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that have come since."""
        size = os.fstat(self.reader).st_size
        self.offset = min(self.offset, size)  # it may have been cut short
        if size - self.offset > MOST_BEHIND:
            skipped = size - self.offset - MOST_BYTES
            self.offset, self.begun = self.offset + skipped, b""
            yield f"{skipped} bytes were not kept: printed faster than they are read"
        block = os.pread(self.reader, MOST_BYTES, self.offset)
        self.offset += len(block)
        self._hand_on(self._blot(block))
        *whole, self.begun = (self.begun + block).split(b"\n")
        while len(self.begun) > LONGEST_LINE:
            whole, self.begun = [*whole, self.begun[:LONGEST_LINE]], self.begun[LONGEST_LINE:]
        for line in whole:
            yield from _text(line)

    def rest(self) -> Iterator[str]:
        """Yield all that is left, the last line without its end."""
        while self.offset < os.fstat(self.reader).st_size:
            yield from self.lines()
        yield from _text(self.begun) if self.begun else ()
        self.begun = b""

    def _blot(self, block: bytes) -> bytes:
        """Take the secrets out of the file, as far as it is read, and return `block` so."""
        text = self.begun + block
        without = blotted(text, self.secrets)
        if without != text:
            with suppress(OSError):  # it was cut short meanwhile
                os.pwrite(self.reader, without, self.offset - len(text))
        return without[len(self.begun) :]

    def _hand_on(self, block: bytes) -> None:
        """Write on what was meant for elsewhere; what is read of a file without a name can go."""
        if self.original is None:
            return
        with suppress(OSError):
            os.write(self.original, block)
        if self.offset > MOST_BEHIND and self.offset == os.fstat(self.reader).st_size:
            os.ftruncate(self.reader, 0)
            self.offset = 0

    def close(self) -> None:
        """Give the descriptor back what it had."""
        if self.original is not None:
            os.dup2(self.original, self.descriptor)
            os.close(self.original)
        os.close(self.reader)


class NativeOutput:
    """What this process writes, by line; `secrets` are values that stay in no file."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        """Begin to follow: what was written before is another's."""
        self._secrets = tuple(secrets)
        self._lock = threading.RLock()  # what is freed meanwhile may print
        self._streams: list[_Stream] = []
        self._writer: int | None = None
        flush()
        with suppress(OSError):
            self._follow()

    def _follow(self) -> None:
        seen: set[tuple[int, int]] = set()
        for descriptor in STREAMS:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            follow = _file if stat.S_ISREG(status.st_mode) else _instead
            self._streams.append(follow(descriptor, status.st_size, self._secrets))
        self._writer = os.dup(STREAMS[-1])

    def write(self, line: str) -> bool:
        """Write a line among all others; return whether it will be read."""
        text = valid(hidden(line, self._secrets)[:LONGEST_LINE]) + "\n"
        with self._lock:
            if self._writer is None:
                return False
            try:
                os.write(self._writer, text.encode())
            except OSError:  # no space left
                return False
        return True

    def free(self) -> None:
        """Forget who holds the lock."""
        self._lock = threading.RLock()

    def lines(self) -> list[str]:
        """Return the whole lines that have come since."""
        with self._lock, suppress(OSError):
            return [line for stream in self._streams for line in stream.lines()]
        return []

    def rest(self) -> list[str]:
        """Return all that is left, also what the C library still holds."""
        flush()
        with self._lock, suppress(OSError):
            return [line for stream in self._streams for line in stream.rest()]
        return []

    def close(self) -> None:
        """Follow no more. Safe to call twice."""
        with self._lock:
            streams, self._streams = self._streams, []
            writer, self._writer = self._writer, None
        with suppress(OSError):
            if writer is not None:
                os.close(writer)
            for stream in streams:
                stream.close()


# Descriptors belong to the process: so does who follows them.
_following: list[NativeOutput] = []
_registered: list[bool] = []


def _free_locks() -> None:
    """Free the locks in a child process: who held one is not there to give it back."""
    for output in _following:
        output.free()


@contextmanager
def followed(secrets: Iterable[str] = ()) -> Iterator[None]:
    """Follow what this process writes; only where it runs one attempt, with its `secrets`."""
    if not _registered:
        _registered.append(True)
        os.register_at_fork(after_in_child=_free_locks)
    output = NativeOutput(secrets)
    _following.append(output)
    try:
        yield
    finally:
        _following.remove(output)
        output.close()


def following() -> NativeOutput | None:
    """Return what this process writes, where that is followed."""
    return _following[-1] if _following else None


def flush() -> None:
    """Have written what Python and the C library hold back."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or replaced by the job
            stream.flush()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).fflush(None)


def _file(descriptor: int, size: int, secrets: tuple[str, ...]) -> _Stream:
    """Follow the file that a descriptor writes to, by a descriptor with a place of its own."""
    how = os.O_RDWR if secrets else os.O_RDONLY
    reader = os.open(f"/proc/self/fd/{descriptor}", how)
    return _Stream(descriptor, reader, size, secrets=secrets)


def _instead(descriptor: int, _size: int, secrets: tuple[str, ...]) -> _Stream:
    """Put a file without a name in the place of a descriptor, and follow that."""
    with tempfile.TemporaryFile() as spool:
        writer = os.open(f"/proc/self/fd/{spool.fileno()}", os.O_WRONLY | os.O_APPEND)
        reader = os.open(f"/proc/self/fd/{spool.fileno()}", os.O_RDWR)
    original = os.dup(descriptor)
    os.dup2(writer, descriptor)
    os.close(writer)
    return _Stream(descriptor, reader, 0, original, secrets=secrets)


def _text(line: bytes) -> Iterator[str]:
    """Yield a line as a terminal would leave it, unless the cluster wrote it for itself."""
    text = line.decode(errors="backslashreplace").rstrip("\r").rpartition("\r")[2]
    if not text.startswith(_MARKS):
        yield text[:LONGEST_LINE]
