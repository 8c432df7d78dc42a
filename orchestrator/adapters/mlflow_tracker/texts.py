"""The text artifacts of a run and of its attempts, each written once for each state of things."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import yaml

from orchestrator.adapters.mlflow_tracker import words
from orchestrator.adapters.mlflow_tracker.experiment import MlflowExperiment, MlflowRun
from orchestrator.adapters.mlflow_tracker.report import failure_report
from orchestrator.adapters.mlflow_tracker.story import Story
from orchestrator.core.runs.run import Attempt, RunHeader

MAX_LOG, MAX_TAIL = 4_000_000, 100_000


class RunTexts:
    """Writes what isn't there yet. A text that broke off is written by the next pass."""

    def __init__(self, server: MlflowExperiment, logs: Path) -> None:
        """`logs` is the folder of the attempts' logs."""
        self._server = server
        self._logs = logs
        self._written: dict[tuple[str, str], int] = {}

    def of_run(self, header: RunHeader, shown: MlflowRun) -> None:
        """Write the resolved config and the plan."""
        if (shown.id, "plan.json") in self._written:
            return
        config = json.loads(json.dumps(header.config, default=str))
        self._write(shown, "config.yaml", yaml.safe_dump(config, sort_keys=False))
        self._write(shown, "plan.md", words.plan_table(header.plan))
        self._write(shown, "plan.json", json.dumps(asdict(header.plan), indent=1, default=str))

    def of_attempt(self, story: Story, attempt: Attempt, shown: MlflowRun) -> None:
        """Write the log of an attempt that has ended, what it reports, and how it failed."""
        if attempt.active:
            return
        name = f"{attempt.stage}.{attempt.number}.log"
        failure = attempt.failure
        if failure and (attempt.followed or story.run.done):
            report = failure_report(story, attempt, failure, _lines(self._logs / name))
            self._write(shown, "failure.md", report)  # again, where more is known of what followed
        if (shown.id, name) not in self._written:
            self._write(shown, name, _tail(self._logs / name, MAX_LOG))
        for path in sorted((self._logs / f"{attempt.stage}.{attempt.number}.reports").glob("*")):
            if (shown.id, path.name) not in self._written:
                self._write(shown, path.name, path.read_text("utf-8", "replace"))

    def _write(self, shown: MlflowRun, path: str, text: str) -> None:
        digest = hash(text)
        if text and self._written.get((shown.id, path)) != digest:
            self._server.text(shown, path, text)
        self._written[shown.id, path] = digest


def _lines(path: Path) -> list[str]:
    return _tail(path, MAX_TAIL).splitlines()


def _tail(path: Path, size: int) -> str:
    """Return the file's last `size` bytes as text; empty when there is none."""
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(end - size, 0))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
