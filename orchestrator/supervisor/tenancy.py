"""Who uses the services of a home, and which of them are there only as long as somebody does.

Each user holds a shared lock; the system frees it when the user dies. The last to leave takes it
alone, and ends the services that users had started, also those of users who were killed.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Self

from orchestrator.supervisor import file_modes
from orchestrator.supervisor import record as records
from orchestrator.supervisor import service as services

_PASSING = ".passing"
_LOCK = "tenants.lock"


class Tenancy:
    """One user of the services of `home`; a context manager."""

    def __init__(self, home: Path) -> None:
        """Use nothing yet."""
        self._home = home
        self._folder = records.folder_of(home)
        self._lock = -1

    def __enter__(self) -> Self:
        """Begin to use them; waits while a last user ends them."""
        self._lock = _open(self._home)
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return self

    def __exit__(self, *error: object) -> None:
        """Leave; the last one ends what is not kept."""
        try:
            if _alone(self._lock):
                for note in reversed(self._notes()):
                    if services.elsewhere(self._home, note.stem):
                        continue  # the last to leave on that host ends it
                    services.stop(self._home, note.stem)
                    note.unlink(missing_ok=True)
        finally:
            os.close(self._lock)

    def started(self, service: str) -> None:
        """Note that `service` is started for its users alone."""
        (self._folder / f"{service}{_PASSING}").touch()

    def keep(self) -> None:
        """Let all services stay when the last user leaves."""
        for note in self._notes():
            note.unlink(missing_ok=True)

    def _notes(self) -> list[Path]:
        """Return the notes on services that go with the last user, in the order of their start."""
        return sorted(self._folder.glob(f"*{_PASSING}"), key=lambda note: note.stat().st_mtime_ns)


def used(home: Path) -> bool:
    """Return whether anybody uses the services of `home`."""
    lock = _open(home)
    try:
        return not _alone(lock)
    finally:
        os.close(lock)


def is_user(home: Path, pid: int) -> bool:
    """Return whether process `pid` uses the services of `home`; any may where nothing tells."""
    files, lock = Path(f"/proc/{pid}/fd"), records.folder_of(home) / _LOCK
    if not Path("/proc/self/fd").is_dir():
        return True
    try:
        return any(file.samefile(lock) for file in files.iterdir() if file.exists())
    except OSError:  # the process has ended, or nobody has ever used them
        return False


def _open(home: Path) -> int:
    folder = records.folder_of(home)
    file_modes.private_folder(folder)
    return os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)


def _alone(lock: int) -> bool:
    """Whether nobody else holds `lock`: then it is held alone from now on, else not at all."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
