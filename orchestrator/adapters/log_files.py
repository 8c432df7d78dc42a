"""Log files: one a stage and attempt, `STAGE.ATTEMPT.log` in the folder of its run.

What an attempt reports lies beside its log, in the folder `STAGE.ATTEMPT.reports`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

from orchestrator.messages import Failed, LogLine, Message, Report


class LogFiles:
    """Writes what attempts print; each line is on disk before the next is taken."""

    def __init__(self, folder: Path) -> None:
        """Make `folder` if it isn't there."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._files: dict[tuple[str, int], TextIO] = {}

    def observe(self, stage: str, attempt: int, message: Message) -> None:
        """Write a line, a report, or how the attempt failed."""
        if isinstance(message, LogLine):
            self._file(stage, attempt).write(f"[{message.rank}] {message.text}\n")
        elif isinstance(message, Report):
            folder = reports(self.folder, stage, attempt)
            folder.mkdir(exist_ok=True)
            (folder / message.name).write_text(message.text, "utf-8")
        elif isinstance(message, Failed):
            failure = message.failure
            text = f"{failure.detail}\n" if failure.detail else ""
            self._file(stage, attempt).write(f"{text}{failure.kind}: {failure.evidence}\n")

    def close(self) -> None:
        """Close the files."""
        while self._files:
            self._files.popitem()[1].close()

    def _file(self, stage: str, attempt: int) -> TextIO:
        key = (stage, attempt)
        if key not in self._files:
            path = self.folder / f"{stage}.{attempt}.log"
            self._files[key] = path.open("a", encoding="utf-8", buffering=1)
        return self._files[key]


def reports(folder: Path, stage: str, attempt: int) -> Path:
    """Return the folder of what an attempt reports, among the logs of its run."""
    return folder / f"{stage}.{attempt}.reports"


def existing(folder: Path, stage: str | None = None) -> list[Path]:
    """Return the log files of a run, or of one stage, by stage and attempt."""
    found = [path for path in folder.glob("*.log") if stage in (None, _stage_of(path))]
    return sorted(found, key=lambda path: (path.stat().st_ctime_ns, path.name))


def _stage_of(path: Path) -> str:
    return path.name.rsplit(".", 2)[0]
