"""All that a command has started and that still runs: its groups, and what carries its mark.

A process that makes a session of its own leaves the group of the command, and its environment
still tells where it comes from. That is read where the system shows it, in `/proc`; elsewhere the
groups alone are known. What has ended and was not yet waited for by its parent counts as ended.
"""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_NAME = "ORCHESTRATOR_COMMAND"
_ENDED = frozenset("ZXx")
_MOST_SHOWN = 100  # characters of a command


@dataclass(frozen=True, slots=True)
class Survivors:
    """What runs: the groups of processes that have any, and those that have left their group."""

    groups: frozenset[int]
    strays: frozenset[int]

    def __bool__(self) -> bool:
        """Whether anything runs."""
        return bool(self.groups or self.strays)

    def send(self, what: signal.Signals) -> None:
        """Send a signal to all of it."""
        for group in self.groups:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, what)
        for process in self.strays:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, what)


class Descendants:
    """What the processes of one command have started, all of which inherit `variables`."""

    def __init__(self) -> None:
        """Choose a mark that nothing else carries."""
        self.variables: Mapping[str, str] = {_NAME: secrets.token_hex(8)}
        self._mark = f"{_NAME}={self.variables[_NAME]}".encode()

    def alive(self, groups: Collection[int]) -> Survivors:
        """Return what runs of the process `groups`, and of what else carries the mark."""
        if not (_PROC / "self" / "stat").exists():
            return Survivors(frozenset(filter(_answers, groups)), frozenset())
        running = list(self._running(groups))
        return Survivors(
            frozenset(group for _, group in running if group in groups),
            frozenset(int(folder.name) for folder, group in running if group not in groups),
        )

    def names(self, groups: Collection[int]) -> list[str]:
        """Return what runs in words: the command of each, and its number."""
        if not (_PROC / "self" / "stat").exists():
            return [f"group {group}" for group in self.alive(groups).groups]
        return [f"{_words(folder)!r} ({folder.name})" for folder, _ in self._running(groups)]

    def _running(self, groups: Collection[int]) -> Iterator[tuple[Path, int]]:
        """Yield the folder in `/proc` and the group of all that runs of it."""
        for folder in _PROC.glob("[0-9]*"):
            group = _group(folder)
            if group is not None and (group in groups or self._marked(folder)):
                yield folder, group

    def _marked(self, folder: Path) -> bool:
        with suppress(OSError):  # it has just ended, or is another user's
            return self._mark in (folder / "environ").read_bytes().split(b"\0")
        return False


def _group(folder: Path) -> int | None:
    """Return the group of a process by its folder in `/proc`, `None` where it has ended."""
    try:
        state, _, group, *_ = (
            (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
        )
    except (OSError, ValueError):
        return None
    return None if state in _ENDED else int(group)


def _words(folder: Path) -> str:
    """Return the command of a process, as far as a line takes it."""
    with suppress(OSError):  # it has just ended
        words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        return " ".join(words.split())[:_MOST_SHOWN]
    return ""


def _answers(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
