"""Why no checkpoint of a command is saved, said once while it runs, or at its end."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path
from time import monotonic, time  # noqa: TID251 - files have times of this clock

from jobs.commands.checkpoint_layout import Layout, Written, changed

_SHOWN = 5  # names that a line lists
_UNSIGNED_SECONDS = 60.0  # for which a checkpoint without its sign is still being written


class CheckpointHints:
    """What is said of `{checkpoints}` where nothing of it is saved.

    `seen` is whether anything there has ever had the name of a checkpoint, `over` whether nothing
    more is said.
    """

    def __init__(self, folder: Path, layout: Layout, log: Callable[[str], None]) -> None:
        """Say nothing yet."""
        self._folder, self._layout, self._log = folder, layout, log
        self.seen = self.over = False
        self._unsigned: tuple[Written, float] | None = None  # the newest, and since when

    def tell_meanwhile(self, parts: Collection[Written]) -> None:
        """Say that what is written looks like checkpoints, and none of it is one: neither `parts`.

        Those have the name of one, and lack what shows that it is whole.
        """
        if self.over:
            return
        if parts:
            self._tell_unsigned(_newest(parts))
        elif not self.seen:
            self._tell_strays()

    def tell_at_the_end(self, parts: Collection[Written], *, failed: bool) -> None:
        """Say why none was saved of a command that has ended, if that was not said before.

        Of one that has `failed` nothing is said where it has written nothing.
        """
        if self.over:
            return
        if parts:
            why = self._lacks(_newest(parts))
        elif self._written():
            why = self._strays()
        elif failed:
            return
        else:
            why = "the command has written nothing into {checkpoints}"
        self._log(f"no checkpoint was saved: {why}")

    def _tell_unsigned(self, newest: Written) -> None:
        if not (self._layout.complete or self._layout.tracker):
            return
        if self._unsigned is None or self._unsigned[0] != newest:
            self._unsigned = newest, monotonic()
        if monotonic() - self._unsigned[1] < _UNSIGNED_SECONDS:
            return
        self._unsigned = newest, monotonic()
        if time() - changed(newest.path) >= _UNSIGNED_SECONDS:
            self.over = True
            self._log(f"no checkpoint is saved so far: {self._lacks(newest)}")

    def _tell_strays(self) -> None:
        numbered = (path for path in self._written() if re.search(r"\d", path.name))
        if any(time() - changed(path) >= self._layout.settle for path in numbered):
            self.over = True
            self._log(f"no checkpoint is saved: {self._strays()}")

    def _lacks(self, newest: Written) -> str:
        return f"{newest.path.name!r} is not whole: {self._layout.lacks(newest)}"

    def _strays(self) -> str:
        names = sorted(path.name for path in self._written())
        shown = ", ".join(map(repr, names[:_SHOWN])) + ", ..." * (len(names) > _SHOWN)
        return f"nothing in {{checkpoints}} fits {self._layout.pattern!r}, but there is {shown}"

    def _written(self) -> list[Path]:
        try:
            return list(self._folder.iterdir())
        except OSError:  # the command has removed the folder
            return []


def _newest(parts: Collection[Written]) -> Written:
    return max(parts, key=lambda written: written.step)
