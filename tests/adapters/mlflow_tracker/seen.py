"""What a test finds on the MLflow server."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mlflow.entities import Metric, Run
from mlflow.tracking import MlflowClient


class Seen:
    """What stands on the server of one experiment."""

    def __init__(self, uri: str, experiment: str) -> None:
        self.client = MlflowClient(uri)
        found = self.client.get_experiment_by_name(experiment)
        assert found is not None
        self.experiment = found
        runs = self.client.search_runs([found.experiment_id])
        self.runs: dict[str, Run] = {run.data.tags["orchestrator.key"]: run for run in runs}
        assert len(runs) == len(self.runs), "a run stands there twice"

    def count(self, key: str, metric: str) -> int:
        run = self.runs[key].info.run_id
        return len(self.client.get_metric_history(run, metric))

    def history(self, key: str, metric: str) -> list[Metric]:
        run = self.runs[key].info.run_id
        return sorted(self.client.get_metric_history(run, metric), key=lambda m: m.step)

    def curve(self, key: str, metric: str) -> list[int]:
        """Return the steps that have a value, as often as they have one."""
        return [point.step for point in self.history(key, metric)]

    def text(self, key: str, path: str) -> str:
        run = self.runs[key].info.run_id
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(run, path, folder)).read_text()

    def counts(self) -> dict[tuple[str, str], int]:
        return {
            (key, metric): self.count(key, metric)
            for key, run in self.runs.items()
            for metric in run.data.metrics
        }

    def files(self, key: str) -> set[str]:
        run = self.runs[key].info.run_id
        return {item.path for item in self.client.list_artifacts(run)}
