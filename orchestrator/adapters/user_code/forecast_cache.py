"""Answers of jobs to the questions of plans, kept for the next plan: a job's imports take seconds.

An answer holds for as long as the question, all that the job can import, and the versions of that
are the same. What can't be read or written is as if nothing were kept.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

from orchestrator.supervisor import file_modes

Answer: TypeAlias = dict[str, Any]
_MOST = 256  # answers that are kept, the newest


class ForecastCache:
    """The answers that stand in a file; of no file at all there are none."""

    def __init__(self, file: Path | None = None) -> None:
        """Read what is kept."""
        self._file = file
        self._answers = _load(file)

    def find(self, key: str) -> Answer | None:
        """Return the answer to a question, by its key."""
        return self._answers.get(key)

    def add(self, answers: Mapping[str, Answer]) -> None:
        """Keep answers for the next command, where there is room."""
        if self._file is None or not answers:
            return
        newest = {**{k: v for k, v in self._answers.items() if k not in answers}, **answers}
        self._answers = dict(list(newest.items())[-_MOST:])
        new = self._file.with_suffix(f".{os.getpid()}")
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            file_modes.private_file(new).write_text(json.dumps(self._answers), "utf-8")
            new.replace(self._file)
        except (OSError, ValueError):
            with suppress(OSError):
                new.unlink(missing_ok=True)


def key_of(question: object, importable: str) -> str:
    """Return what tells a question; `importable` is the digest of what its job can import."""
    text = json.dumps([question, importable], sort_keys=True, default=dict)
    return hashlib.sha256(text.encode()).hexdigest()


def _load(file: Path | None) -> dict[str, Answer]:
    try:
        answers = json.loads(file.read_bytes()) if file else {}
    except (OSError, ValueError):
        return {}
    if not isinstance(answers, dict):
        return {}
    return {key: answer for key, answer in answers.items() if isinstance(answer, dict)}
