"""Which file can't be read, where, and why: one line in place of a traceback."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from hydra.errors import HydraException
from yaml import MarkedYAMLError, YAMLError
from yaml.reader import ReaderError

from orchestrator.core.errors import Problem


def is_cause(error: BaseException) -> bool:
    """Whether `error` says that a file can't be read, and not that there is none."""
    bad = isinstance(error, YAMLError | OSError | UnicodeDecodeError)
    return bad and not isinstance(error, HydraException)


def problem(error: BaseException, folders: Iterable[Path]) -> Problem:
    """Return what `error` says of a file under `folders`."""
    reason = " ".join(str(error).split())
    if isinstance(error, MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        where = f"{mark.name}:{mark.line + 1}:{mark.column + 1}"
        reason = " ".join(str(error.problem or error.context).split())
        return Problem(where, f"is not YAML: {reason}", "mend the file")
    if isinstance(error, ReaderError):
        what = f"is not YAML: it holds the character {error.character!r}"
        return Problem(str(error.name), what, "save it as UTF-8 text")
    if isinstance(error, OSError):
        return Problem(str(error.filename or ""), f"can't be read: {error.strerror or reason}")
    lost = next(_not_utf8(folders), "")
    return Problem(str(lost), f"is not YAML: {reason}", "save it as UTF-8 text")


def _not_utf8(folders: Iterable[Path]) -> Iterator[Path]:
    for file in (file for folder in folders for file in sorted(folder.rglob("*.yaml"))):
        try:
            file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            yield file
        except OSError:
            continue
