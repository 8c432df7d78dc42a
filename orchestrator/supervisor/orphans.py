"""Ends what a dead process left running: `python orphans.py DESCRIPTOR GROUP MARK [FOLDER]`.

A killed process can't end its children (loaders of data, launchers, engine servers), and they hold
its chips. So a process group that shall not outlive a process has a guard, in a session of its
own: it waits until the process is gone, and kills the group, and whatever carries MARK in its
environment: what made a group of its own. Then it removes FOLDER, where they worked. A worker
leads such a group itself; who does not is group 0. A guard carries no mark, so none ends another.
Linux alone; elsewhere nothing is watched. Standard library alone: it runs as a file, and starts
in some 20 ms.
"""

from __future__ import annotations

import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

MARK = "ORCHESTRATOR_WORKER"
_OURS = "ORCHESTRATOR_"
_PROC = Path("/proc")
_watched: list[subprocess.Popen[bytes] | None] = []


def watch() -> None:
    """Have the children of this process end with it, however it ends. Safe to call twice."""
    if _watched or not hasattr(os, "pidfd_open"):
        return
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    _watched.append(follow(MARK, os.getpid()))


def follow(name: str, group: int = 0) -> subprocess.Popen[bytes] | None:
    """Have all that inherits the variable `name` from here on end with this process.

    Return the guard, where the system can have one.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    mark = f"{os.getpid()}-{secrets.token_hex(8)}"
    follower = _guard(group, f"{name}={mark}")
    os.environ[name] = mark  # noqa: TID251 - the children inherit it
    return follower


def guard(group: int, folder: str) -> subprocess.Popen[bytes] | None:
    """Have a process group, and the folder that it works in, end with this process.

    End the guard before the number is free again. `None` where the system can't do that.
    """
    mark = f"{MARK}={secrets.token_hex(8)}"
    return _guard(group, mark, folder) if hasattr(os, "pidfd_open") else None


def _guard(group: int, mark: str, *folder: str) -> subprocess.Popen[bytes]:
    me = os.pidfd_open(os.getpid())  # means this process for ever, whoever gets its number
    unmarked = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}  # noqa: TID251 - as said above
    try:
        return subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, "-I", "-S", __file__, str(me), str(group), mark, *folder],
            pass_fds=[me],
            env=unmarked,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    finally:
        os.close(me)


def main(worker: int, group: int, mark: str, folder: str = "") -> None:
    """Wait for the end of the process that descriptor `worker` means, and kill what it left."""
    select.select([worker], [], [])
    if group:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    for path in _PROC.glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark.encode() in path.read_bytes().split(b"\0"):
                os.kill(int(path.parent.name), signal.SIGKILL)
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
