"""A file that is written in any order, by any thread, and hashed while it is.

A hash wants the bytes in order. What comes in order is hashed as it is handed over; what comes
early is read back, out of the system's cache, once all that stands before it is there. One thread
hashes at a time, and the others go on writing.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

_BLOCK = 1 << 20  # bytes that are read back at once


class HashedFile:
    """A new file of a size that is known.

    Args:
        path: Where it goes; what is there is replaced.
        size: Its bytes. Each is to be written once.

    Raises:
        OSError: It can't be written.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        self._path = path
        self._file = path.open("w+b", buffering=0)  # closed with its owner, whatever that meets
        self._handle = self._file.fileno()
        self._file.truncate(size)
        self._lock = threading.Lock()
        self._busy = False
        self._seen = hashlib.sha256()
        self._hashed = 0  # bytes, from the beginning; whoever is busy moves it
        self._early: dict[int, int] = {}  # where parts begin and end that are written, not hashed

    def write(self, at: int, data: memoryview) -> None:
        """Write bytes at this place.

        Raises:
            OSError: They can't be written, or somebody else has cut the file short.
        """
        begin, left = at, data
        while left:
            count = os.pwrite(self._handle, left, begin)
            left, begin = left[count:], begin + count
        if data and self._is_next(at, at + len(data)):
            self._seen.update(data)
            self._hashed = at + len(data)
            for block in self._read_back():
                self._seen.update(block)

    def sha256(self) -> str:
        """Return the hash of the whole file, as hexadecimal digits.

        Raises:
            ValueError: Some of it is not written yet.
        """
        if self._hashed != self.size:
            raise ValueError(f"{self.size - self._hashed:,} bytes are not hashed yet")
        return self._seen.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _is_next(self, begin: int, end: int) -> bool:
        """Take the hashing over if it can go on at `begin`; if not, note what is written."""
        with self._lock:
            if self._busy or begin != self._hashed:
                self._early[begin] = end
                return False
            self._busy = True
            return True

    def _read_back(self) -> Iterator[memoryview]:
        """Yield what was written early and can be hashed now; then let go of the hashing."""
        while True:
            with self._lock:
                end = self._early.pop(self._hashed, None)
                if end is None:
                    self._busy = False
                    return
            room = memoryview(bytearray(min(_BLOCK, end - self._hashed)))
            while self._hashed < end:
                count = os.preadv(self._handle, [room[: end - self._hashed]], self._hashed)
                if not count:
                    raise OSError(f"{str(self._path)!r} was cut short while it was written")
                yield room[:count]
                self._hashed += count
