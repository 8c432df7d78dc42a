"""Folders in which a process works, until it ends, and what killed ones have left of them.

Each process has a folder of its own and holds the lock in it until it ends, however it ends. Who
makes one takes away those whose lock is free. On a file system that several machines share a lock
may be known to one of them alone: there a folder of another machine is left while it is young.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

LOCK = ".lock"
OLD_SECONDS = 7 * 86_400.0
_DIGITS = 16  # of a name: what lies inside may have a socket, whose path may not be long
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class ScratchFolder:
    """A folder of this process in `parent`; what dead processes left beside it goes."""

    def __init__(self, parent: Path, prefix: str = "") -> None:
        """Make it, lock it, and take away what nobody holds."""
        parent.mkdir(parents=True, exist_ok=True)
        self._owner = os.getpid()
        self.path, self._handle = _locked(parent, prefix)
        sweep(parent, prefix, self.path / LOCK)

    def touch(self) -> None:
        """Show others who can't see the lock that it is in use."""
        with suppress(OSError):
            os.utime(self.path / LOCK)

    def remove(self) -> None:
        """Take it away with all in it, and let its lock go. A forked child leaves it alone.

        Safe to call twice.
        """
        if os.getpid() == self._owner and self._handle >= 0:
            shutil.rmtree(self.path, ignore_errors=True)
            os.close(self._handle)
            self._handle = -1


def _locked(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        path = parent / f"{prefix}{uuid.uuid4().hex[:_DIGITS]}"
        path.mkdir(mode=0o700)
        try:
            handle = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # swept already, as one that nobody holds
        with suppress(OSError):  # a file system without locks: nobody sweeps there
            fcntl.flock(handle, fcntl.LOCK_EX)
        os.write(handle, _machine())
        if (path / LOCK).exists():
            return path, handle
        os.close(handle)


def sweep(parent: Path, prefix: str, own: Path | None = None) -> None:
    """Take away the folders of `parent` that begin with `prefix` and that nobody holds.

    Those of another machine only where they are old, by the time at which `own` was made.
    """
    now = own.stat().st_mtime if own else 0.0
    for lock in parent.glob(f"{prefix}*/{LOCK}"):
        with suppress(OSError):
            handle = os.open(lock, os.O_RDWR)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                status = os.fstat(handle)
                foreign = os.pread(handle, status.st_size, 0) != _machine()
                if not foreign or now - status.st_mtime > OLD_SECONDS:
                    shutil.rmtree(lock.parent, ignore_errors=True)
            finally:
                os.close(handle)


def _machine() -> bytes:
    """Return what tells this machine, since it started, from others."""
    with suppress(OSError):
        return _BOOT.read_bytes()
    return b""
