"""The text artifacts of a run and of its attempts, each written once."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import yaml

from orchestrator.adapters.mlflow_tracker import words
from orchestrator.adapters.mlflow_tracker.server import Server, Shown
from orchestrator.core.run import Attempt, RunHeader

MAX_LOG = 4_000_000


class Texts:
    """Writes what isn't there yet. A text that broke off is written by the next pass."""

    def __init__(self, server: Server, logs: Path) -> None:
        """`logs` is the folder of the attempts' logs."""
        self._server = server
        self._logs = logs
        self._written: set[tuple[str, str]] = set()

    def of_run(self, header: RunHeader, shown: Shown) -> None:
        """Write the resolved config and the plan."""
        if (shown.id, "plan.json") in self._written:
            return
        config = json.loads(json.dumps(header.config, default=str))
        self._write(shown, "config.yaml", yaml.safe_dump(config, sort_keys=False))
        self._write(shown, "plan.md", words.plan_table(header.plan))
        self._write(shown, "plan.json", json.dumps(asdict(header.plan), indent=1, default=str))

    def of_attempt(self, attempt: Attempt, shown: Shown) -> None:
        """Write the log of an attempt that has ended, and how it failed."""
        name = f"{attempt.stage}.{attempt.number}.log"
        if attempt.active or (shown.id, name) in self._written:
            return
        if attempt.failure:
            failure = attempt.failure
            self._write(shown, "failure.txt", f"{failure.evidence}\n\n{failure.detail}\n")
        self._write(shown, name, _tail(self._logs / name))

    def _write(self, shown: Shown, path: str, text: str) -> None:
        if text and (shown.id, path) not in self._written:
            self._server.text(shown, path, text)
        self._written.add((shown.id, path))


def _tail(path: Path) -> str:
    """Return the file's last megabytes as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(size - MAX_LOG, 0))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
