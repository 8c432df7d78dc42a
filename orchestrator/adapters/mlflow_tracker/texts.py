"""The text artifacts of a run and of its attempts, each written once for each state of things."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TypeAlias

import yaml

from orchestrator.adapters.mlflow_tracker import words
from orchestrator.adapters.mlflow_tracker.experiment import MlflowExperiment, MlflowRun
from orchestrator.adapters.mlflow_tracker.report import failure_report
from orchestrator.adapters.mlflow_tracker.tracked_run import TrackedRun
from orchestrator.core.runs.run import Attempt, RunHeader
from orchestrator.output_reader import OutputReader

MAX_LOG, MAX_TAIL = 4_000_000, 100_000  # characters
Place: TypeAlias = tuple[str, int]


class RunTexts:
    """Writes what isn't there yet. A text that broke off is written by the next pass."""

    def __init__(self, server: MlflowExperiment, output: OutputReader) -> None:
        """`output` is what the attempts write."""
        self._server = server
        self._output = output
        self._written: dict[tuple[str, str], int] = {}
        self._ends: Mapping[Place, int] = {}
        self._read: dict[Place, int] = {}
        self._last_lines: dict[Place, list[str]] = {}

    def read_ends(self) -> None:
        """See which logs have grown. Raises `StoreError`."""
        self._ends = self._output.ends()

    def of_run(self, header: RunHeader, mlflow_run: MlflowRun) -> None:
        """Write the resolved config and the plan."""
        if (mlflow_run.id, "plan.json") in self._written:
            return
        config = json.loads(json.dumps(header.config, default=str))
        self._write(mlflow_run, "config.yaml", yaml.safe_dump(config, sort_keys=False))
        self._write(mlflow_run, "plan.md", words.plan_table(header.plan))
        self._write(
            mlflow_run, "plan.json", json.dumps(asdict(header.plan), indent=1, default=str)
        )

    def of_attempt(self, tracked: TrackedRun, attempt: Attempt, mlflow_run: MlflowRun) -> None:
        """Write the log of an attempt that has ended, what it reports, and how it failed.

        What its log gets after its end is written too, once it is there.
        """
        if attempt.active:
            return
        place, failure = (attempt.stage, attempt.number), attempt.failure
        name, end = f"{attempt.stage}.{attempt.number}.log", self._ends.get(place, 0)
        new = (mlflow_run.id, name) not in self._written or self._read.get(place) != end
        if failure and (attempt.followed or tracked.run.done):
            if new or place not in self._last_lines:
                self._last_lines[place] = self._output.tail(*place, MAX_TAIL).splitlines()
            report = failure_report(tracked, attempt, failure, self._last_lines[place])
            self._write(
                mlflow_run, "failure.md", report
            )  # again, where more is known of what followed
        if not new:
            return
        self._write(mlflow_run, name, self._output.tail(*place, MAX_LOG))
        for report_name, text in self._output.reports(*place).items():
            self._write(mlflow_run, report_name, text)
        self._read[place] = end

    def _write(self, mlflow_run: MlflowRun, path: str, text: str) -> None:
        digest = hash(text)
        if text and self._written.get((mlflow_run.id, path)) != digest:
            self._server.text(mlflow_run, path, text)
        self._written[mlflow_run.id, path] = digest
