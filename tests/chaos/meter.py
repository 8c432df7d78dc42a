"""Does something to this process after it has written so and so much. For child processes alone.

A unit is a byte that is written, or 200 of them for a call that changes a folder or flushes. So
one number names any moment of a save: within a file, a manifest or a mark, before a rename.
"""

from __future__ import annotations

import errno
import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

CALL = 200


def kill() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop() -> None:
    """Stand still until somebody lets it go on."""
    os.kill(os.getpid(), signal.SIGSTOP)


def refuse() -> None:
    """Be a disk that is full."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Meter:
    """Counts units, and calls `act` when `limit` is reached: once, or from then on always."""

    def __init__(self, limit: int, act: Callable[[], None], *, always: bool = False) -> None:
        """Take the place of what writes in this process."""
        self.units = 0
        self._limit = limit
        self._act = act
        self._always = always
        opened, self._open = self, io.open

        class Metered(io.FileIO):
            def write(self, data: Any) -> int:
                return opened.write(super().write, bytes(data))

        def open_file(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if "b" in mode and ("w" in mode or "x" in mode):
                return io.BufferedWriter(Metered(file, mode.replace("b", "")))
            return self._open(file, mode, *rest, **more)

        io.open = open_file  # pathlib looks it up there
        for owner, name in (
            (os, "fsync"),
            (Path, "rename"),
            (Path, "mkdir"),
            (Path, "unlink"),
            (shutil, "rmtree"),
        ):
            setattr(owner, name, self._metered(getattr(owner, name)))

    def write(self, write: Callable[[bytes], int], data: bytes) -> int:
        """Write `data`, or only what is left up to the limit."""
        left = self._limit - self.units
        self.units += len(data)
        if 0 <= left < len(data):
            written = write(data[:left]) if left else 0
            self._act()
            return written + write(data[left:])
        if left < 0 and self._always:
            self._act()
        return write(data)

    def _metered(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def metered(*args: Any, **more: Any) -> Any:
            due = self.units <= self._limit < self.units + CALL
            self.units += CALL
            if due:
                self._act()
            return call(*args, **more)

        return metered
