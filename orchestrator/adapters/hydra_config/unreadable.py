"""Which file can't be read, where, and why: one line in place of a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from yaml import MarkedYAMLError

from orchestrator.core.errors import Problem


def problem(error: BaseException, folders: Iterable[Path]) -> Problem:
    """Return what `error` says of a file under `folders`."""
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        where = f"{mark.name}:{mark.line + 1}:{mark.column + 1}"
        reason = " ".join(str(error.problem or error.context).split())
        return Problem(where, f"is not YAML: {reason}", "mend the file")
    if isinstance(error, OSError):
        return Problem(str(error.filename), f"can't be read: {error.strerror}")
    lost = next(_not_text(folders), None)
    reason = " ".join(str(error).split())
    return Problem(str(lost or ""), f"is not YAML: {reason}", "save it as UTF-8 text")


def _not_text(folders: Iterable[Path]) -> Iterator[Path]:
    for file in (file for folder in folders for file in sorted(folder.rglob("*.yaml"))):
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield file
        else:
            if not all(char.isprintable() or char in "\r\n\t\ufeff" for char in text):
                yield file
