"""Files and folders that are their owner's alone, whatever the umask says.

What is there already and lets others in is narrowed, where it belongs to this user. Standard
library alone, for the daemon stays small.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
_OTHERS = 0o077


def private_folder(path: Path) -> Path:
    """Have a folder at `path` that its owner alone can enter; return it."""
    path.mkdir(mode=FOLDER, parents=True, exist_ok=True)
    narrow(path, FOLDER)
    return path


def private_file(path: Path) -> Path:
    """Have a file at `path` that its owner alone can read; return it."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE))
    narrow(path, FILE)
    return path


def narrow(path: Path, mode: int) -> None:
    """Let nobody but its owner, who is this user, use what is at `path`."""
    status = path.stat()
    plain = stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)  # no device, as /dev/null
    if plain and status.st_uid == os.geteuid() and status.st_mode & _OTHERS:
        path.chmod(mode)


def open_to_others(path: Path) -> int:
    """Return the mode of what is at `path` where others may use it, else 0."""
    mode = stat.S_IMODE(path.stat().st_mode)
    return mode if mode & _OTHERS else 0
