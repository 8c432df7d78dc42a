"""What a job has left of the folder of its artifact: files of its own, and nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from orchestrator.core.errors import JobError

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFREG: "a file",
}


def has_files(output: Path) -> bool:
    """Return whether a job has written any file.

    Raises:
        JobError: The folder is none any more, or holds what can't be kept.
    """
    mode = _mode(output)
    if mode is None or not stat.S_ISDIR(mode):
        what = "gone" if mode is None else f"{_kind(mode)} now"
        raise JobError(f"ctx.output is {what}; leave it a folder, and write files into it")
    some = False
    for parent, folders, names in os.walk(output):
        for name in (*folders, *names):
            path = Path(parent, name)
            mode = _mode(path)
            if mode is None or stat.S_ISDIR(mode):
                continue
            if not stat.S_ISREG(mode):
                inner = path.relative_to(output).as_posix()
                raise JobError(f"ctx.output has {inner!r}, {_kind(mode)}; write a file instead")
            some = True
    return some


def _mode(path: Path) -> int | None:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None


def _kind(mode: int) -> str:
    return _KINDS.get(stat.S_IFMT(mode), "no file")
