"""What a checkpoint of a command is called, and by what it is known to be whole."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from time import time  # noqa: TID251 - files have times of this clock

_SETTLE = 5.0
_STEP, _ANY = "{step}", "*"


@dataclass(frozen=True, slots=True)
class Written:
    """A checkpoint, or a worker's part of one, where the command has written it."""

    step: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How checkpoints are named, and by what one is known to be whole.

    Attributes:
        pattern: Path of a checkpoint below `{checkpoints}`, a folder or a file, with `{step}`
            for the digits of its step, and `*` for any characters of a name.
        complete: A file in its folder that is written last.
        tracker: A file below `{checkpoints}` whose text is the step of the newest that is whole,
            or its name.
        settle: Seconds for which nothing of it may have changed, where neither of them is given.
        reshard: Whether another number of processes than had written it can go on from it.
    """

    pattern: str
    complete: str = ""
    tracker: str = ""
    settle: float = _SETTLE
    reshard: bool = True

    def written(self, folder: Path) -> list[Written]:
        """Return what fits in `{checkpoints}`."""
        name = _expression(self.pattern)
        try:
            paths = list(folder.glob(re.sub(r"\*+", _ANY, self.pattern.replace(_STEP, _ANY))))
        except OSError:  # a folder has just gone
            return []
        fits = ((name.fullmatch(str(path.relative_to(folder))), path) for path in paths)
        return [Written(int(match[1]), path) for match, path in fits if match]

    def sign(self, written: Written, folder: Path) -> object:
        """Return what stays the same of a checkpoint in `{checkpoints}` once it is whole."""
        if self.complete:
            return _state(written.path / self.complete)
        if self.tracker:
            return self._tracked(written, folder)
        return not self.settle or changed(written.path)

    def whole(self, written: Written, folder: Path, at: float) -> bool:
        """Whether a checkpoint was whole at a time, by its sign, or as nothing of it changed."""
        if self.complete:
            sign = written.path / self.complete
            return sign.is_file() and not _torn(sign)
        if self.tracker:
            return self._tracked(written, folder)
        return not self.settle or at - changed(written.path) >= self.settle

    def lacks(self, written: Written) -> str:
        """Return why a checkpoint is not whole."""
        if self.complete:
            torn = (written.path / self.complete).is_file()
            return f"its {self.complete!r} is torn" if torn else f"it has no {self.complete!r}"
        if self.tracker:
            return f"{self.tracker!r} does not name step {written.step}, or a later one"
        return f"it had changed within the last {self.settle:g} s"

    def _tracked(self, written: Written, folder: Path) -> bool:
        try:
            text = (folder / self.tracker).read_text().strip()
        except (OSError, ValueError):
            return False
        name = _expression(PurePosixPath(self.pattern).name).fullmatch(text)
        digits = name[1] if name and name.groups() else text
        return digits.isdecimal() and int(digits) >= written.step


def _expression(pattern: str) -> re.Pattern[str]:
    """Return what fits a pattern, with the digits of its step as the one group."""
    parts = re.split(r"(\*|\{step\})", pattern)
    own = {_STEP: r"(\d+)", _ANY: "[^/]*?"}
    return re.compile("".join(own.get(part, re.escape(part)) for part in parts))


def _torn(sign: Path) -> bool:
    """Whether a file of JSON ends before its end; one that was touched alone is a sign, too."""
    try:
        text = sign.read_bytes() if sign.suffix == ".json" else b""
        json.loads(text or b"{}")
    except (OSError, ValueError):
        return True
    return False


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def changed(path: Path) -> float:
    """Return when anything of a checkpoint was changed last."""
    files = (Path(at, name) for at, _, names in os.walk(path) for name in names)
    times = [_time(file) for file in (path, *files)]
    return max(times)


def _time(path: Path) -> float:
    """Return when a file was changed, or was put where it is with a time that it had before."""
    try:
        status = path.stat()
    except OSError:  # it has just gone
        return time()
    return max(status.st_mtime, status.st_ctime)
