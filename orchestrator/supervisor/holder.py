"""The name of a process, by which others can look whether it lives: `HOST/SYSTEM/PID/BIRTH`.

SYSTEM is the boot of the machine and its space of process ids, so that neither a restart nor a
container of the same host name is mistaken for this machine.
"""

from __future__ import annotations

import os

from orchestrator.supervisor import record

_PARTS = 4


def name() -> str:
    """Return the name of this process."""
    return f"{record.system()}/{os.getpid()}/{record.birth(os.getpid())}"


def lives(holder: str) -> bool | None:
    """Return whether the process named `holder` lives; `None` when it isn't on this machine."""
    number = pid(holder)
    return None if number is None else record.birth(number) == holder.rpartition("/")[2]


def pid(holder: str) -> int | None:
    """Return the number of the process named `holder`; `None` when it isn't on this machine."""
    parts = holder.rsplit("/", 2)
    if len(parts) < _PARTS - 1 or parts[0] != record.system() or not parts[1].isdecimal():
        return None
    return int(parts[1])


def in_words(holder: str) -> str:
    """Return `holder` in words; empty where it is no name."""
    parts = holder.split("/")
    return f"process {parts[2]} on {parts[0]}" if len(parts) == _PARTS else ""
