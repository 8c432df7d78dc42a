"""Copies of what a command has written, made beside it: it may remove or overwrite its own.

A copy is made in a thread, so that the command is watched meanwhile. It counts where the
checkpoint was there, and its sign of completeness the same, until all of it was copied. Of a
command that has ended the checkpoint itself is taken, which needs no time and no room.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event, Thread
from typing import TypeAlias

from jobs.commands.checkpoint_layout import Written

_GONE = f"[Errno {errno.ENOENT}]"  # how `shutil` tells of each file that it could not copy
_BLOCK = 4 << 20  # bytes that are copied at a time
_EMPTY_LOOKS, _PAUSE = 20, 0.05  # at a tracker without a text
_Fill: TypeAlias = Callable[["Copy"], None]


class ChangedError(OSError):
    """It was still being written, or is written again: it is copied later."""


class _UnwantedError(OSError):
    """Nobody asks for this copy any more."""


class Copy:
    """A copy of what was `written` in a `folder` of its own, of which another copies no file."""

    def __init__(self, written: Written, folder: Path) -> None:
        """Make nothing yet."""
        self.written, self.folder = written, folder
        self.error: OSError | None = OSError("it is not made")
        self._done, self._unwanted = Event(), Event()

    @property
    def done(self) -> bool:
        """Whether it is made, or could not be made."""
        return self._done.is_set()

    @property
    def whole(self) -> bool:
        """Whether it is made."""
        return self.done and self.error is None

    @property
    def vanished(self) -> bool:
        """Whether nothing stood in its way but that the checkpoint went meanwhile."""
        error = self.error
        if isinstance(error, shutil.Error):
            return all(str(why).startswith(_GONE) for why in _reasons(error))
        return isinstance(error, FileNotFoundError)

    @property
    def why(self) -> str:
        """What stood in its way, in words."""
        if isinstance(self.error, shutil.Error):
            reasons = [str(why) for why in _reasons(self.error)]
            return next((why for why in reasons if not why.startswith(_GONE)), reasons[0])
        return getattr(self.error, "strerror", None) or str(self.error)

    def make(self, fill: _Fill) -> None:
        """Have `fill` make it; what goes wrong is kept, and no file of it."""
        try:
            self.folder.mkdir(parents=True)
            fill(self)
            self.error = None
        except OSError as error:
            self.error = error
        finally:  # what is no error of a file the thread prints
            if self.error is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
            self._done.set()

    def wait(self, seconds: float) -> None:
        """Wait for its end, at most for `seconds`."""
        self._done.wait(seconds)

    def give_up(self) -> None:
        """Have it end soon: nobody asks for it any more."""
        self._unwanted.set()

    def copy_file(self, source: str, into: str) -> str:
        """Copy a file, as `shutil.copy2`, and stop where nobody asks for it any more.

        Raises:
            OSError: It can't be copied, or nobody asks for it any more.
        """
        if not Path(source).is_file():
            Path(source).stat()  # tells that it is gone, else it is a pipe or a device
            raise shutil.SpecialFileError(f"{source!r} is no file")
        with Path(source).open("rb") as reads, Path(into).open("wb") as writes:
            while block := reads.read(_BLOCK):
                if self._unwanted.is_set():
                    raise _UnwantedError(f"{source!r} is asked for no more")
                writes.write(block)
        shutil.copystat(source, into)
        return into


class Copies:
    """Makes copies of what is written below `source`, each in a new folder of `into`."""

    def __init__(self, source: Path, into: Path, tracker: str, notes: Mapping[str, str]) -> None:
        """Have the file `tracker` of a copy name the copy as its command does, where there is one.

        `notes` are files that each copy has.
        """
        self._source, self._into = source, into
        self._tracker, self._notes = tracker, notes
        self._number = 0

    def begin(self, written: Written, sign: Callable[[], object]) -> Copy:
        """Begin a copy, in a thread; it is whole where `sign` says the same before and after."""
        before, copy = sign(), self._next(written)

        def fill(copy: Copy) -> None:
            self._fill(copy, moves=False)
            if not written.path.exists():
                raise FileNotFoundError(errno.ENOENT, "it was removed", str(written.path))
            if sign() != before:
                raise ChangedError(errno.EBUSY, "it is still being written")

        Thread(target=copy.make, args=(fill,), daemon=True).start()
        return copy

    def take(self, written: Written) -> Copy:
        """Return the checkpoint itself as its copy."""
        copy = self._next(written)
        copy.make(lambda copy: self._fill(copy, moves=True))
        return copy

    def _next(self, written: Written) -> Copy:
        self._number += 1
        return Copy(written, self._into / str(self._number))

    def _fill(self, copy: Copy, *, moves: bool) -> None:
        path = copy.written.path
        into = copy.folder / path.relative_to(self._source)
        into.parent.mkdir(parents=True, exist_ok=True)
        if moves and not path.is_symlink():
            shutil.move(path, into)
        elif path.is_dir():
            shutil.copytree(path, into, symlinks=True, copy_function=copy.copy_file)
        else:
            copy.copy_file(str(path), str(into))
        tracker = self._source / self._tracker
        if self._tracker and tracker.is_file():
            named = copy.folder / self._tracker  # that of the command may be of a later one by now
            named.parent.mkdir(parents=True, exist_ok=True)
            alike = _shape(_text_of(tracker)) == _shape(path.name)
            named.write_text(path.name if alike else str(copy.written.step))
        for name, text in self._notes.items():
            (copy.folder / name).write_text(text)


def hand_over(copy: Path, folder: Path) -> None:
    """Fill the folder of a checkpoint with what was copied, which goes."""
    for path in copy.iterdir():
        shutil.move(path, folder / path.name)
    copy.rmdir()


def _text_of(tracker: Path) -> str:
    """Return what a tracker says, which its command may be writing anew at the moment."""
    for _ in range(_EMPTY_LOOKS):
        if text := tracker.read_text(errors="replace").strip():
            return text
        Event().wait(_PAUSE)
    return ""


def _shape(name: str) -> str:
    """Return what is the same of the names of all checkpoints."""
    return re.sub(r"\d+", "0", name)


def _reasons(error: shutil.Error) -> list[object]:
    listed = error.args[0] if error.args and isinstance(error.args[0], list) else []
    return [entry[-1] for entry in listed] or [error]
