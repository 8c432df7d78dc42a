"""Ends what a dead process left running: `orphans.py PROCESS RELEASE GROUP MARK [FOLDER]`.

A killed process can't end its children (loaders of data, launchers, engine servers), and they hold
its chips. So a process group that shall not outlive a process has a guard, in a session of its
own: it waits until the process is gone, and kills the group, and whatever carries MARK in its
environment: what made a group of its own. Then it removes FOLDER, where they worked. A worker
leads such a group itself; who does not is group 0. A guard is nobody's child, since Ray kills the
children of a worker that it ends, and carries no mark, so that none ends another. Linux alone;
elsewhere nothing is watched. Standard library alone: it runs as a file, and starts in some 20 ms.
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
_watched: list[OrphanGuard | None] = []


class OrphanGuard:
    """What ends others once this process is gone; `released`, it ends none."""

    def __init__(self, group: int, mark: str, *folder: str) -> None:
        """Start it, as a grandchild."""
        me = os.pidfd_open(os.getpid())  # means this process for ever, whoever gets its number
        released, self._release = os.pipe()
        unmarked = {n: value for n, value in os.environ.items() if not n.startswith(_OURS)}  # noqa: TID251 - as said above
        named = [str(me), str(released), str(group), mark, *folder]
        try:
            self._launcher = subprocess.Popen(  # noqa: S603 - this very file
                [sys.executable, "-I", "-S", __file__, *named],
                pass_fds=[me, released],
                env=unmarked,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        finally:
            os.close(me)
            os.close(released)

    def release(self) -> None:
        """Let it go, before the number of what it guards is free again. Safe to call twice."""
        if self._release >= 0:
            with suppress(BrokenPipeError):
                os.write(self._release, b"x")
            os.close(self._release)
            self._release = -1
        self._launcher.wait()


def watch() -> None:
    """Have the children of this process end with it, however it ends. Safe to call twice."""
    if _watched or not hasattr(os, "pidfd_open"):
        return
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    _watched.append(follow(MARK, os.getpid()))


def follow(name: str, group: int = 0) -> OrphanGuard | None:
    """Have all that inherits the variable `name` from here on end with this process.

    Return the guard, where the system can have one.
    """
    if not hasattr(os, "pidfd_open"):
        return None
    mark = f"{os.getpid()}-{secrets.token_hex(8)}"
    follower = OrphanGuard(group, f"{name}={mark}")
    os.environ[name] = mark  # noqa: TID251 - the children inherit it
    return follower


def guard(group: int, folder: str) -> OrphanGuard | None:
    """Have a process group, and the folder that it works in, end with this process.

    `None` where the system can't do that.
    """
    mark = f"{MARK}={secrets.token_hex(8)}"
    return OrphanGuard(group, mark, folder) if hasattr(os, "pidfd_open") else None


def main(watched: str, released_by: str, leader: str, mark: str, folder: str = "") -> None:
    """Wait for the end of the process that descriptor `watched` means, and kill what it left.

    A byte that comes by descriptor `released_by` says that there is nothing to end.
    """
    process, release, group = int(watched), int(released_by), int(leader)
    if release in select.select([process, release], [], [])[0]:
        if os.read(release, 1):
            return
        select.select([process], [], [])  # whoever inherited the other end is gone before it
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
    if os.fork() == 0:
        main(*sys.argv[1:])
