"""Log files: one a stage and attempt, `STAGE.ATTEMPT.log` in the folder of its run.

What an attempt reports lies beside its log, in the folder `STAGE.ATTEMPT.reports`.
"""

from __future__ import annotations

import os
from pathlib import Path

from orchestrator.messages import Failed, LogLine, Message, Report


class LogFiles:
    """Writes what attempts print; each line is on disk before the next is taken.

    A line that finds no room is lost alone: `OSError` says why, and the next one is tried.
    """

    def __init__(self, folder: Path) -> None:
        """Write into `folder`, which is made with the first file."""
        self.folder = folder
        self._files: dict[tuple[str, int], _LogFile] = {}

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Write a line, a report, or how the attempt failed. Raises `OSError`."""
        if isinstance(message, LogLine):
            self._file(stage, attempt).write(f"[{message.rank}] {message.text}\n")
        elif isinstance(message, Report):
            folder = reports(self.folder, stage, attempt)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / message.name).write_bytes(_bytes(message.text))
        elif isinstance(message, Failed):
            failure = message.failure
            text = f"{failure.detail}\n" if failure.detail else ""
            self._file(stage, attempt).write(f"{text}{failure.kind}: {failure.evidence}\n")

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def _file(self, stage: str, attempt: int) -> _LogFile:
        key = (stage, attempt)
        if key not in self._files:
            self._files[key] = _LogFile(self.folder / f"{stage}.{attempt}.log")
        return self._files[key]


class _LogFile:
    """One file that lines are added to, without a buffer: what failed is not written later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._torn = False

    def write(self, text: str) -> None:
        """Add `text`, whole lines; after one that was cut short on a line of its own.

        A file that somebody has removed meanwhile is made again.
        """
        if self._descriptor >= 0 and not os.fstat(self._descriptor).st_nlink:
            self.close()
        if self._descriptor < 0:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._descriptor = os.open(self._path, flags, 0o666)
        data = _bytes(f"\n{text}" if self._torn else text)
        begun = 0
        try:
            while begun < len(data):
                begun += os.write(self._descriptor, data[begun:])
        finally:
            if begun:
                self._torn = begun < len(data)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def reports(folder: Path, stage: str, attempt: int) -> Path:
    """Return the folder of what an attempt reports, among the logs of its run."""
    return folder / f"{stage}.{attempt}.reports"


def existing(folder: Path, stage: str | None = None) -> list[Path]:
    """Return the log files of a run, or of one stage, by stage and attempt."""
    found = [path for path in folder.glob("*.log") if stage in (None, _stage_of(path))]
    return sorted(found, key=lambda path: (path.stat().st_ctime_ns, path.name))


def _stage_of(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]
